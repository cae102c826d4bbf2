package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"
	"text/tabwriter"
	"time"

	"hull/errdef"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// view is runc's form of the state: the runtime-spec's, and what its callers came to read.
type view struct {
	specs.State
	Rootfs  string    `json:"rootfs"`
	Created time.Time `json:"created"`
	Owner   string    `json:"owner"`
}

func (k *container) view() view {
	v := view{State: k.state(k.status()), Rootfs: k.Rootfs, Created: k.Created}
	if st, err := os.Stat(k.dir); err == nil {
		uid := strconv.Itoa(int(st.Sys().(*syscall.Stat_t).Uid))
		v.Owner = "#" + uid
		if u, err := user.LookupId(uid); err == nil {
			v.Owner = u.Username
		}
	}
	return v
}

func printState(c *command) error {
	args, err := c.parse(c.flags(), 1, 1)
	if err != nil {
		return err
	}
	k, err := c.load(args[0])
	if err != nil {
		return err
	}
	return printJSON(k.view())
}

func printJSON(v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Println(string(data))
	return err
}

func list(c *command) error {
	fs := c.flags()
	var format string
	var quiet bool
	for _, name := range []string{"format", "f"} {
		fs.StringVar(&format, name, "table", "")
	}
	for _, name := range []string{"quiet", "q"} {
		fs.BoolVar(&quiet, name, false, "")
	}
	if _, err := c.parse(fs, 0, 0); err != nil {
		return err
	}
	all, err := c.containers()
	if err != nil {
		return err
	}
	views := []view{}
	for _, k := range all {
		views = append(views, k.view())
	}
	switch {
	case quiet:
		for _, v := range views {
			fmt.Println(v.ID)
		}
		return nil
	case format == "json":
		return json.NewEncoder(os.Stdout).Encode(views)
	case format != "table":
		return errdef.Invalid("invalid format option: %q", format)
	}
	w := tabwriter.NewWriter(os.Stdout, 12, 1, 3, ' ', 0)
	fmt.Fprint(w, "ID\tPID\tSTATUS\tBUNDLE\tCREATED\tOWNER\n")
	for _, v := range views {
		fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%s\t%s\n", v.ID, v.Pid, v.Status, v.Bundle, v.Created.Format(time.RFC3339Nano), v.Owner)
	}
	return w.Flush()
}

// containers loads all containers, in the order of their names.
func (c *command) containers() ([]*container, error) {
	entries, err := os.ReadDir(c.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []*container
	for _, e := range entries {
		k, err := c.load(e.Name())
		if errors.Is(err, errdef.ErrNotFound) || errors.Is(err, errdef.ErrInvalid) {
			continue // being made or removed, or not ours
		}
		if err != nil {
			c.report("warning", err.Error())
			continue
		}
		all = append(all, k)
	}
	return all, nil
}
