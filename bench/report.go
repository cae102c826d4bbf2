package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

const intro = `# Benchmarks

Written by ` + "`make bench`" + `: medians of wall-clock time, what is compared run alternately. The floor is
[bench/limit/limit.c](../bench/limit/limit.c), a C program that makes the namespaces and mounts of a container, runs true in
them, and does nothing else. Stores and the floor are on an ext4 as mkfs makes it, in a file; run directories on a tmpfs. Why a figure is what it is: [design notes](design), and the trace below.

`

// report writes the table where o says.
func (l *lab) report(o options) error {
	var b strings.Builder
	b.WriteString(intro)
	fmt.Fprintf(&b, "%s, commit %s, %s, Linux %s, %d cores, %s; load average when it began: %s.\n\n", time.Now().UTC().Format("2006-01-02"),
		said("git", "rev-parse", "--short", "HEAD"), cpu(), said("uname", "-r"), runtime.NumCPU(), runtime.Version(), l.load)
	b.WriteString("| what | median | against | median | ratio | goal |\n| --- | ---: | --- | ---: | ---: | --- |\n")
	for _, r := range l.rows {
		ratio, goal := r.verdict()
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", r.what, ms(r.a), r.against, ms(r.b), ratio, goal)
	}
	b.WriteByte('\n')
	for _, f := range l.facts {
		fmt.Fprintf(&b, "%s\n\n", f)
	}
	if l.trace != "" {
		fmt.Fprintf(&b, "One `HULL_TRACE=1 hull run --rm --network none IMG true` of the same session:\n\n```\n%s```\n", l.trace)
	}
	if o.out == "-" {
		_, err := os.Stdout.WriteString(b.String())
		return err
	}
	if err := os.MkdirAll("docs", 0o755); err != nil {
		return err
	}
	return os.WriteFile(o.out, []byte(b.String()), 0o644)
}

// verdict is the ratio of the row and whether its goal was reached.
func (r *row) verdict() (ratio, goal string) {
	a, b := float64(r.a), float64(r.b)
	reached := true
	switch {
	case r.bound > 0:
		ratio, goal, reached = fmt.Sprintf("%.2f", a/b), fmt.Sprintf("at most %g: ", r.bound), a <= r.bound*b
	case r.faster > 0:
		ratio, goal, reached = fmt.Sprintf("%.1f × faster", b/a), fmt.Sprintf("at least %g ×: ", r.faster), b >= r.faster*a
	default:
		return fmt.Sprintf("%.1f × faster", b/a), r.note
	}
	if goal += "reached"; !reached {
		goal = strings.TrimSuffix(goal, "reached") + "**not reached**"
	}
	if r.note != "" {
		goal += "; " + r.note
	}
	return ratio, goal
}

func ms(d time.Duration) string { return fmt.Sprintf("%.2f ms", float64(d)/1e6) }

// said is the output of a command, or "unknown".
func said(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

func cpu() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(strings.TrimSpace(name), ": \t")
		}
	}
	return runtime.GOARCH
}
