package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func pause(c *command) error {
	return c.withContainer(func(k *container) error {
		if s := k.status(); s != running && s != created {
			return errdef.Conflict("container not running or created: %s", s)
		}
		g, err := k.group()
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(c.ctx, clearTimeout)
		defer cancel()
		return g.Freeze(ctx)
	})
}

func resume(c *command) error {
	return c.withContainer(func(k *container) error {
		g, err := k.group()
		if err != nil {
			return err
		}
		if !g.Frozen() {
			return errdef.Conflict("container not paused")
		}
		return g.Thaw()
	})
}

// withContainer does f with the container that is the only argument, locked.
func (c *command) withContainer(f func(*container) error) error {
	args, err := c.parse(c.flags(), 1, 1)
	if err != nil {
		return err
	}
	k, unlock, err := c.loadLocked(args[0])
	if err != nil {
		return err
	}
	defer unlock()
	return f(k)
}

// update takes the limits as the resources section of a configuration, from a file or ("-") stdin, or as options.
func update(c *command) error {
	fs := c.flags()
	var file string
	for _, name := range []string{"resources", "r"} {
		fs.StringVar(&file, name, "", "")
	}
	values := map[string]*string{}
	for _, name := range []string{"memory", "memory-swap", "memory-reservation", "cpu-share", "cpu-period", "cpu-quota", "cpu-burst",
		"cpuset-cpus", "cpuset-mems", "pids-limit", "blkio-weight", "cpu-idle"} {
		values[name] = fs.String(name, "", "")
	}
	args, err := c.parse(fs, 1, 1)
	if err != nil {
		return err
	}
	k, unlock, err := c.loadLocked(args[0])
	if err != nil {
		return err
	}
	defer unlock()
	if s := k.status(); s == stopped || s == creating {
		return errdef.Conflict("container %s is not running: %s", k.ID, s)
	}
	res, err := readResources(file)
	if err != nil {
		return err
	}
	if err := optionResources(res, values); err != nil {
		return err
	}
	g, err := k.group()
	if err != nil {
		return err
	}
	warnings, err := g.Set(res)
	for _, w := range warnings {
		c.report("warning", w)
	}
	return err
}

func readResources(file string) (*specs.LinuxResources, error) {
	res := &specs.LinuxResources{}
	if file == "" {
		return res, nil
	}
	var data []byte
	var err error
	if file == "-" {
		data, err = io.ReadAll(os.Stdin)
	} else {
		data, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, res); err != nil {
		return nil, errdef.Invalid("resources: %w", err)
	}
	return res, nil
}

// optionResources adds the options that were given to res. Sizes are in bytes.
func optionResources(res *specs.LinuxResources, values map[string]*string) error {
	var bad error
	number := func(name string) *int64 {
		v := *values[name]
		if v == "" {
			return nil
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil {
			bad = errdef.Invalid("--%s: %q is not a number", name, v)
			return nil
		}
		return &n
	}
	set := func(to **int64, name string) {
		if n := number(name); n != nil {
			*to = n
		}
	}
	setU := func(to **uint64, name string) {
		if n := number(name); n != nil {
			u := uint64(*n)
			*to = &u
		}
	}
	if res.Memory == nil {
		res.Memory = &specs.LinuxMemory{}
	}
	if res.CPU == nil {
		res.CPU = &specs.LinuxCPU{}
	}
	set(&res.Memory.Limit, "memory")
	set(&res.Memory.Swap, "memory-swap")
	set(&res.Memory.Reservation, "memory-reservation")
	setU(&res.CPU.Shares, "cpu-share")
	setU(&res.CPU.Period, "cpu-period")
	set(&res.CPU.Quota, "cpu-quota")
	setU(&res.CPU.Burst, "cpu-burst")
	set(&res.CPU.Idle, "cpu-idle")
	if v := *values["cpuset-cpus"]; v != "" {
		res.CPU.Cpus = v
	}
	if v := *values["cpuset-mems"]; v != "" {
		res.CPU.Mems = v
	}
	if n := number("pids-limit"); n != nil {
		res.Pids = &specs.LinuxPids{Limit: n}
	}
	if n := number("blkio-weight"); n != nil {
		w := uint16(*n)
		if res.BlockIO == nil {
			res.BlockIO = &specs.LinuxBlockIO{}
		}
		res.BlockIO.Weight = &w
	}
	return bad
}

// ps prints the processes: their pids as JSON, or the lines of ps(1) that are of the container.
func ps(c *command) error {
	fs := c.flags()
	var format string
	for _, name := range []string{"format", "f"} {
		fs.StringVar(&format, name, "table", "")
	}
	args, err := c.parse(fs, 1, -1)
	if err != nil {
		return err
	}
	k, err := c.load(args[0])
	if err != nil {
		return err
	}
	g, err := k.group()
	if err != nil {
		return err
	}
	pids, err := g.Pids()
	if err != nil {
		return err
	}
	switch format {
	case "json":
		if pids == nil {
			pids = []int{}
		}
		return json.NewEncoder(os.Stdout).Encode(pids)
	case "table":
	default:
		return errdef.Invalid("invalid format option: %q", format)
	}
	options := args[1:]
	if len(options) == 0 {
		options = []string{"-ef"}
	}
	out, err := exec.Command("ps", options...).Output()
	if err != nil {
		return fmt.Errorf("ps: %w", err)
	}
	return filterPs(os.Stdout, string(out), pids)
}

func filterPs(w io.Writer, table string, pids []int) error {
	lines := strings.Split(strings.TrimSuffix(table, "\n"), "\n")
	column := slices.Index(strings.Fields(lines[0]), "PID")
	if column < 0 {
		return errdef.Invalid("couldn't find PID field in ps output")
	}
	fmt.Fprintln(w, lines[0])
	for _, line := range lines[1:] {
		f := strings.Fields(line)
		if column >= len(f) {
			continue
		}
		if pid, err := strconv.Atoi(f[column]); err == nil && slices.Contains(pids, pid) {
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
	}
	return nil
}
