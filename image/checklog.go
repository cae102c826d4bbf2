package image

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"hull/errdef"
	"hull/ref"
	"hull/state"
)

// byRepair is who a log says has written what it lacked.
const byRepair = "system check --repair"

// logs looks at what the store remembers of names: each line of a log, and that each name has a log that ends with what it
// names.
func (c *checker) logs(ctx context.Context) error {
	top := filepath.Join(c.s.root, "refs.log")
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return c.doubt(ctx, "logs below "+path, err)
		}
		if d.IsDir() || strings.HasPrefix(d.Name(), state.TempPrefix) {
			return nil
		}
		r, ok := refOfFile(strings.TrimPrefix(path, top+"/"))
		if !ok {
			return c.report(ctx, "file "+path, "it is no log of a name", "remove it", func() error { return c.s.quarantine(path) })
		}
		return c.logLines(ctx, r)
	})
	if err != nil {
		return err
	}
	for r := range c.s.refs() {
		if r.Digest == "" {
			if err := c.logEnd(ctx, r); err != nil {
				return err
			}
		}
	}
	return nil
}

// logLines looks for lines of r's log that are none.
func (c *checker) logLines(ctx context.Context, r ref.Ref) error {
	object := "log of " + r.Familiar()
	_, bad, err := c.s.soundLines(r)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil && passing(err):
		return c.doubt(ctx, object, err)
	case err == nil && bad == 0:
		return nil
	}
	problem := fmt.Sprintf("%d of its lines cannot be understood", bad)
	if err != nil {
		problem = err.Error()
	}
	return c.report(ctx, object, problem, cureRepair, func() error {
		return c.s.update(ctx, func() error {
			sound, bad, err := c.s.soundLines(r) // as it is now
			if errors.Is(err, fs.ErrNotExist) || err == nil && bad == 0 {
				return nil
			}
			if err != nil && passing(err) {
				return err
			}
			tmp := c.in.tempBlob()
			if err := state.WriteDurable(tmp, []byte(sound)); err != nil {
				return err
			}
			return c.s.exchange(tmp, c.s.logPath(r))
		})
	})
}

// soundLines returns the lines of r's log that can be understood, and how many there are that cannot. What was being
// appended when the machine went down is not one of them: it has no end, and never took effect.
func (s *Store) soundLines(r ref.Ref) (sound string, bad int, err error) {
	data, err := state.Read(s.logPath(r), maxLog)
	if err != nil {
		return "", 0, err
	}
	var b strings.Builder
	for line := range strings.Lines(string(data)) {
		text, whole := strings.CutSuffix(line, "\n")
		if _, ok := parseLogLine(text); ok && whole {
			b.WriteString(line)
		} else if whole {
			bad++
		}
	}
	return b.String(), bad, nil
}

// logEnd compares the last line of r's log with what r names.
func (c *checker) logEnd(ctx context.Context, r ref.Ref) error {
	object := "log of " + r.Familiar()
	problem, _, _, err := c.s.logProblem(r)
	if problem != "" { // or the name was being changed: again, alone
		l, lockErr := c.s.lockRefs(ctx)
		if lockErr != nil {
			return c.doubt(ctx, object, lockErr)
		}
		problem, _, _, err = c.s.logProblem(r)
		l.Unlock()
	}
	if err != nil && passing(err) {
		return c.doubt(ctx, object, err)
	}
	if err != nil || problem == "" {
		return nil // the name itself is damaged, or gone: that is said elsewhere
	}
	return c.report(ctx, object, problem, cureRepair, func() error {
		return c.s.update(ctx, func() error {
			problem, last, now, err := c.s.logProblem(r)
			if err != nil || problem == "" {
				return err
			}
			return c.s.log(refChange{r, now}, last, byRepair)
		})
	})
}

// logProblem says what r's log lacks, "" for nothing, with what it says last and what r names.
func (s *Store) logProblem(r ref.Ref) (problem string, last, now ref.Digest, err error) {
	if now, err = s.readRef(r); err != nil {
		return "", "", "", err
	}
	log, err := s.readLog(r)
	if errors.Is(err, errdef.ErrNotFound) {
		return "it is missing", "", now, nil
	}
	if err != nil {
		return "", "", "", err
	}
	if log = effective(log, string(now)); len(log) == 0 {
		return "it is empty", "", now, nil
	}
	if last = ref.Digest(log[len(log)-1].New); last != now {
		return "it does not end with what the name names", last, now, nil
	}
	return "", last, now, nil
}

// cutTorn takes from the end of the log f, of size bytes, what a writer was about to append when the machine went down. Other
// writers are kept out by the lock of update.
func cutTorn(f *os.File, size int64) error {
	tail := make([]byte, min(size, 4096)) // a line is shorter
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil {
		return err
	}
	end := strings.LastIndexByte(string(tail), '\n') + 1
	if end == len(tail) {
		return nil
	}
	if end == 0 && int64(len(tail)) < size { // nothing of ours: the check says so
		_, err := f.WriteString("\n")
		return err
	}
	return f.Truncate(size - int64(len(tail)-end))
}
