package journal

import (
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	recheck   = time.Second            // a file system may not tell of changes (NFS)
	pollEvery = 100 * time.Millisecond // where there is no inotify instance left
)

// watch wakes the followers of this process when the journal changes. They share one inotify instance, because those
// are few: 128 for each user.
type watch struct {
	mu      sync.Mutex // protects the following
	waiters int
	f       *os.File      // inotify
	changed chan struct{} // closed and replaced at each change
	done    chan struct{} // closed when the last one leaves
}

// waiter is one follower's part of a watch.
type waiter struct{ w *watch }

// join begins to watch dir.
func (w *watch) join(dir string) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiters++; w.waiters == 1 {
		w.changed, w.done = make(chan struct{}), make(chan struct{})
		if w.f = watchDir(dir); w.f != nil {
			go w.listen(w.f, w.done)
		} else {
			go w.poll(w.done)
		}
	}
	return &waiter{w}
}

// leave ends the goroutine with its last waiter.
func (t *waiter) leave() {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	if t.w.waiters--; t.w.waiters > 0 {
		return
	}
	close(t.w.done)
	if t.w.f != nil {
		t.w.f.Close()
		t.w.f = nil
	}
}

// next is closed at the next change from now on.
func (t *waiter) next() <-chan struct{} {
	t.w.mu.Lock()
	defer t.w.mu.Unlock()
	return t.w.changed
}

// wake tells all waiters; false when those of done have left.
func (w *watch) wake(done chan struct{}) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done != done || w.waiters == 0 {
		return false
	}
	close(w.changed)
	w.changed = make(chan struct{})
	return true
}

// watchDir returns an inotify instance for dir, which is made when missing; nil when there is none to be had.
func watchDir(dir string) *os.File {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil
	}
	const events = unix.IN_MODIFY | unix.IN_MOVED_TO | unix.IN_CREATE | unix.IN_ATTRIB
	_, err = unix.InotifyAddWatch(fd, dir, events)
	if err == unix.ENOENT && os.MkdirAll(dir, 0o700) == nil {
		_, err = unix.InotifyAddWatch(fd, dir, events)
	}
	if err != nil {
		unix.Close(fd)
		return nil
	}
	return os.NewFile(uintptr(fd), "inotify")
}

// listen ends when f is closed.
func (w *watch) listen(f *os.File, done chan struct{}) {
	buf := make([]byte, 16<<10)
	for {
		if _, err := f.Read(buf); err != nil {
			return
		}
		if !w.wake(done) {
			return
		}
	}
}

func (w *watch) poll(done chan struct{}) {
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		select {
		case <-done:
			return
		case <-t.C:
			w.wake(done)
		}
	}
}
