package image

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"hull/ref"
)

// The time of modification of images/<id> is when the image was last used: what is in the file never changes after it was
// written. To note a use is one system call, which waits for nothing; a power cut may take it back.

// Used notes that the image id is used now.
func (s *Store) Used(id string) {
	if _, err := ref.ParseDigest(id); err != nil {
		return
	}
	now := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Nsec: unix.UTIME_NOW}}
	_ = unix.UtimesNanoAt(unix.AT_FDCWD, s.recordPath(id), now, unix.AT_SYMLINK_NOFOLLOW) // e.g. a store that is read-only
}

// LastUse is when the image id was brought in or a container was last made of it or removed; the zero time if there is no
// such image. Never in the future, whatever the clock was set to.
func (s *Store) LastUse(id string) time.Time {
	if _, err := ref.ParseDigest(id); err != nil {
		return time.Time{}
	}
	fi, err := os.Lstat(s.recordPath(id))
	if err != nil {
		return time.Time{}
	}
	if now := time.Now(); fi.ModTime().After(now) {
		return now
	}
	return fi.ModTime()
}
