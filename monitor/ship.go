package monitor

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// logs takes the output of a container to where its log driver says: to files, somewhere else, or both.
type logs struct {
	file *logger  // nil: none
	ship *shipper // nil: none
}

// openLogs opens what the driver needs. A journal or a syslog server that is not there is an error: a container is not
// to run unheard. It returns nil when nothing is kept.
func openLogs(dir string, cfg *LogConfig) (_ *logs, err error) {
	l := new(logs)
	if cfg.Driver == LogNone {
		return nil, nil
	}
	defer func() {
		if err != nil {
			l.close()
		}
	}()
	if !cfg.NoCache {
		if l.file, err = openLog(dir, *cfg); err != nil {
			return nil, fmt.Errorf("open log: %w", err)
		}
	}
	var to sink
	switch cfg.Driver {
	case LogJournald:
		to, err = openJournal(cfg.Fields)
	case LogSyslog:
		to, err = openSyslog(cfg.Syslog)
	default:
		if cfg.NonBlocking {
			to, l.file = fileSink{l.file}, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if to != nil {
		l.ship = newShipper(to, cfg)
	}
	return l, nil
}

// write takes the whole lines at the front of p, as logger.write does.
func (l *logs) write(stream string, at time.Time, p []byte, all bool) int {
	if l == nil {
		return (*logger)(nil).write(stream, at, p, all)
	}
	taken := l.file.write(stream, at, p, all)
	if l.ship == nil {
		return taken
	}
	for rest := p[:taken]; len(rest) > 0; {
		n := lineEnd(rest, true)
		l.ship.add(stream, at, rest[:n])
		rest = rest[n:]
	}
	return taken
}

func (l *logs) close() {
	if l == nil {
		return
	}
	if l.ship != nil {
		l.ship.close()
	}
	l.file.close()
}

// sink is where a shipper brings lines.
type sink interface {
	// send delivers one line within sinkTimeout, or fails; then it is called again with the same line later.
	send(e *shipped) error
	// close takes sinkTimeout at most.
	close()
}

// Bounds of what a log server that does not answer can do.
const (
	sinkTimeout = 5 * time.Second // of one attempt
	drainWait   = 5 * time.Second // for what is queued at the end, without the attempt that is on its way then
	shipWait    = 5 * time.Second // that a full queue holds the container up, once until lines flow again
	shipQueue   = 64 << 10        // bytes that wait, in blocking mode
	shipCost    = 64              // of one line beside its text
	retryMin    = 100 * time.Millisecond
	retryMax    = 10 * time.Second
)

// shipped is one line on its way.
type shipped struct {
	stream string
	at     time.Time
	text   []byte // with its newline; a piece of a long line has none
}

// shipper brings lines to a sink from a bounded queue. When that is full, in blocking mode the container waits, but not
// for ever: what a dead server can cost is shipWait once and then lines, which are counted and told of as soon as some
// arrive again. In non-blocking mode it costs lines only.
type shipper struct {
	sink sink
	wait time.Duration
	max  int64
	more chan struct{} // capacity 1: there is something in the queue
	room chan struct{} // capacity 1: there is less in the queue
	stop chan struct{} // closed by close
	late chan struct{} // closed drainWait later
	done chan struct{} // closed when run has returned

	mu    sync.Mutex // protects the following
	queue []shipped
	bytes int64
	lost  int64
}

func newShipper(to sink, cfg *LogConfig) *shipper {
	s := &shipper{
		sink: to, wait: shipWait, max: shipQueue,
		more: make(chan struct{}, 1), room: make(chan struct{}, 1), stop: make(chan struct{}), late: make(chan struct{}), done: make(chan struct{}),
	}
	if cfg.NonBlocking {
		s.wait, s.max = 0, cfg.Buffer
	}
	go s.run() // ends with close
	return s
}

// add queues a line, or counts it as lost.
func (s *shipper) add(stream string, at time.Time, text []byte) {
	var deadline <-chan time.Time
	for !s.put(stream, at, text, false) {
		if deadline == nil {
			t := time.NewTimer(s.wait)
			defer t.Stop()
			deadline = t.C
		}
		select {
		case <-s.room:
		case <-deadline:
			s.put(stream, at, text, true)
			return
		}
	}
}

// put reports false when the queue is full and waiting may help; with last set the line is lost then.
func (s *shipper) put(stream string, at time.Time, text []byte, last bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	size := int64(len(text)) + shipCost
	if len(s.queue) > 0 && s.bytes+size > s.max {
		if !last && s.wait > 0 && s.lost == 0 {
			return false
		}
		s.lost++
		return true
	}
	s.queue = append(s.queue, shipped{stream, at, append([]byte(nil), text...)})
	s.bytes += size
	wake(s.more)
	return true
}

func wake(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// run sends what is queued, in order, until close; then what is left, as long as that goes well and drainWait is not over.
func (s *shipper) run() {
	defer close(s.done)
	stopping := false
	for {
		e, ok := s.first()
		switch {
		case ok:
			if s.isLate() || !s.deliver(&e) {
				return
			}
			s.drop()
		case stopping:
			return
		default:
			select {
			case <-s.more:
			case <-s.stop:
				stopping = true
			}
		}
	}
}

func (s *shipper) first() (shipped, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		s.queue = nil // its memory goes with it
		return shipped{}, false
	}
	return s.queue[0], true
}

// drop takes the first line out of the queue, which has been delivered.
func (s *shipper) drop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bytes -= int64(len(s.queue[0].text)) + shipCost
	s.queue[0] = shipped{}
	s.queue = s.queue[1:]
	wake(s.room)
}

// deliver sends e, again and again, and then says what was lost before. It reports false when it gave up, at the end.
func (s *shipper) deliver(e *shipped) bool {
	pause := retryMin
	for {
		err := s.sink.send(e)
		if err == nil {
			break
		}
		select {
		case <-s.stop:
			return false
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMax)
	}
	if s.isLate() {
		return true
	}
	s.mu.Lock()
	lost := s.lost
	s.lost = 0
	s.mu.Unlock()
	if lost > 0 {
		note := shipped{"stderr", time.Now(), fmt.Appendf(nil, "hull: %d lines are missing here: the log could not take them\n", lost)}
		if s.sink.send(&note) != nil {
			s.mu.Lock()
			s.lost += lost
			s.mu.Unlock()
		}
	}
	return true
}

func (s *shipper) isLate() bool {
	select {
	case <-s.late:
		return true
	default:
		return false
	}
}

// close waits until the rest is delivered or cannot be: drainWait and one attempt at most. A server that takes a little
// from time to time would else keep the container from ending.
func (s *shipper) close() {
	close(s.stop)
	t := time.AfterFunc(drainWait, func() { close(s.late) })
	defer t.Stop()
	<-s.done
	s.mu.Lock()
	left := len(s.queue) + int(s.lost)
	s.mu.Unlock()
	if left > 0 {
		fmt.Fprintf(os.Stderr, "hull-runtime monitor: %d lines of the log could not be delivered\n", left)
	}
	s.sink.close()
}

// fileSink lets files be written behind a queue, for containers that are not to wait for a slow disk.
type fileSink struct{ *logger }

func (f fileSink) send(e *shipped) error {
	f.logger.write(e.stream, e.at, e.text, true)
	return nil
}

func (f fileSink) close() { f.logger.close() }
