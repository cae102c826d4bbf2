// Package trace records when each step of a command happened, for HULL_TRACE=1. It costs one nil check when off.
//
//	t := trace.FromEnv("hull")
//	t.Step("resolve image")
//	t.Write(os.Stderr)
//
// Times are CLOCK_MONOTONIC nanoseconds, so steps of several processes merge into one line of time.
package trace

import (
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// Env is the variable that turns tracing on.
const Env = "HULL_TRACE"

// Step is one thing done: At is when it was finished, in CLOCK_MONOTONIC nanoseconds.
type Step struct {
	Who  string `json:"who"`
	What string `json:"what"`
	At   int64  `json:"at"`
}

// Trace collects steps. A nil *Trace is valid and records nothing.
type Trace struct {
	who string

	mu    sync.Mutex // protects steps
	steps []Step
}

// New returns a trace whose steps are named after the process part who.
func New(who string) *Trace { return &Trace{who: who} }

// FromEnv returns a trace when HULL_TRACE is set, else nil.
func FromEnv(who string) *Trace {
	if os.Getenv(Env) == "" {
		return nil
	}
	return New(who)
}

// Now is CLOCK_MONOTONIC in nanoseconds.
func Now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return 0
	}
	return ts.Nano()
}

// Step records that what has just been finished.
func (t *Trace) Step(what string) {
	if t == nil {
		return
	}
	s := Step{t.who, what, Now()}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps = append(t.steps, s)
}

// Add merges the steps another process recorded.
func (t *Trace) Add(steps []Step) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.steps = append(t.steps, steps...)
}

// Steps returns what was recorded, in order of time.
func (t *Trace) Steps() []Step {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	slices.SortStableFunc(t.steps, func(a, b Step) int { return int(a.At - b.At) })
	return slices.Clone(t.steps)
}

// Write prints one line a step: since the first step, since the one before, who, what.
func (t *Trace) Write(w io.Writer) {
	steps := t.Steps()
	for i, s := range steps {
		before := steps[max(0, i-1)].At
		fmt.Fprintf(w, "%9.3f ms %+8.3f  %-8s %s\n", float64(s.At-steps[0].At)/1e6, float64(s.At-before)/1e6, s.Who, s.What)
	}
}
