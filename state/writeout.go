package state

import "golang.org/x/sys/unix"

// WriteOut keeps the disk busy while a long file is written, so that a sync at the end has little left to wait for: without
// it the kernel begins to write when a tenth of the memory is dirty, or after half a minute. The zero value is ready.
//
// It promises nothing: a file is on the disk after a sync, and not before.
type WriteOut struct{ from int64 }

// writeOutStep is large enough for long runs of blocks: a file system finds room for them when they are written.
const writeOutStep = 8 << 20

// Written says that everything before end has been written to fd.
func (w *WriteOut) Written(fd int, end int64) {
	if end-w.from < writeOutStep {
		return
	}
	_ = unix.SyncFileRange(fd, w.from, end-w.from, unix.SYNC_FILE_RANGE_WRITE)
	w.from = end
}
