package engine

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"

	"hull/monitor"
)

// Process is one of a container's, as /proc of the host shows it.
type Process struct {
	UID, Pid, Parent int
	Command          string
}

// Top lists the processes of a running container.
func (e *Engine) Top(ctx context.Context, name string) ([]Process, error) {
	c, err := e.get(ctx, name)
	if err != nil {
		return nil, err
	}
	if !c.Running() {
		return nil, notRunning(c.ID)
	}
	resp, err := e.ask(ctx, c.ID, &monitor.Request{Op: monitor.OpTop})
	if errors.Is(err, monitor.ErrNoMonitor) {
		return nil, notRunning(c.ID)
	}
	if err != nil {
		return nil, err
	}
	e.containerEvent(c, "top")
	var out []Process
	for _, pid := range resp.Pids {
		if p, ok := readProcess(pid); ok {
			out = append(out, p)
		}
	}
	return out, nil
}

// readProcess reads /proc/PID; ok is false when the process has ended.
func readProcess(pid int) (p Process, ok bool) {
	dir := "/proc/" + strconv.Itoa(pid) + "/"
	status, err := os.ReadFile(dir + "status")
	if err != nil {
		return p, false
	}
	p.Pid = pid
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		f := strings.Fields(value)
		if len(f) == 0 {
			continue
		}
		switch key {
		case "Name":
			p.Command = "[" + f[0] + "]" // for one that has no command line
		case "PPid":
			p.Parent, _ = strconv.Atoi(f[0])
		case "Uid":
			p.UID, _ = strconv.Atoi(f[0])
		}
	}
	if args, err := os.ReadFile(dir + "cmdline"); err == nil && len(args) > 0 {
		p.Command = strings.TrimRight(strings.ReplaceAll(string(args), "\x00", " "), " ")
	}
	return p, true
}
