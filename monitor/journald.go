package monitor

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"hull/errdef"

	"golang.org/x/sys/unix"
)

// journalSocket is where systemd-journald listens.
const journalSocket = "/run/systemd/journal/socket"

// journald sends entries by journald's native protocol: one datagram each, a line NAME=value for every field, or for a
// value that has newlines NAME, newline, its length in 64 bits little-endian, the value, newline.
type journald struct {
	fd    int
	to    unix.Sockaddr
	fixed []byte // the fields that do not change, encoded
	buf   []byte
}

func openJournal(fields map[string]string) (sink, error) { return dialJournal(journalSocket, fields) }

func dialJournal(path string, fields map[string]string) (sink, error) {
	if _, err := os.Stat(path); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errdef.Unavailable("log driver journald: no journal listens at %s: start systemd-journald, or choose another --log-driver", path)
		}
		return nil, fmt.Errorf("log driver journald: %w", err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	j := &journald{fd: fd, to: &unix.SockaddrUnix{Name: path}}
	tv := unix.NsecToTimeval(sinkTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		j.fixed = appendField(j.fixed, name, []byte(fields[name]))
	}
	// Whether somebody listens: an empty datagram is no entry.
	if err := j.sendto(nil, nil); errors.Is(err, unix.ECONNREFUSED) {
		unix.Close(fd)
		return nil, errdef.Unavailable("log driver journald: no journal listens at %s: start systemd-journald, or choose another --log-driver", path)
	}
	return j, nil
}

func appendField(b []byte, name string, value []byte) []byte {
	b = append(b, name...)
	if bytes.IndexByte(value, '\n') < 0 {
		b = append(b, '=')
	} else {
		b = append(b, '\n')
		b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
	}
	return append(append(b, value...), '\n')
}

func (j *journald) send(e *shipped) error {
	priority := "6" // informational
	if e.stream == "stderr" {
		priority = "3" // an error
	}
	text, whole := bytes.CutSuffix(e.text, []byte{'\n'})
	b := append(j.buf[:0], j.fixed...)
	b = appendField(b, "PRIORITY", []byte(priority))
	b = appendField(b, "SYSLOG_TIMESTAMP", []byte(e.at.UTC().Format(time.RFC3339Nano)))
	if !whole {
		b = appendField(b, "CONTAINER_PARTIAL_MESSAGE", []byte("true"))
	}
	b = appendField(b, "MESSAGE", text)
	j.buf = b
	err := j.sendto(b, nil)
	if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
		return j.sendFile(b)
	}
	return err
}

func (j *journald) sendto(b, oob []byte) error {
	for {
		_, err := unix.SendmsgN(j.fd, b, oob, j.to, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}

// sendFile passes an entry that is too large for a datagram as a sealed file in memory, which is how journald takes it.
func (j *journald) sendFile(b []byte) error {
	fd, err := unix.MemfdCreate("journal-entry", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd)
	for rest := b; len(rest) > 0; {
		n, err := unix.Write(fd, rest)
		if err != nil {
			return os.NewSyscallError("write", err)
		}
		rest = rest[n:]
	}
	const seals = unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE | unix.F_SEAL_SEAL
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		return os.NewSyscallError("seal", err)
	}
	return j.sendto(nil, unix.UnixRights(fd))
}

func (j *journald) close() { unix.Close(j.fd) }

// oneLine keeps what a container writes within its entry of a protocol that is made of lines.
func oneLine(text []byte) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == 0 {
			return ' '
		}
		return r
	}, string(text))
}
