package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"hull/client"
	"hull/errdef"

	"github.com/spf13/cobra"
)

func buildLogs(a *app, cmd *cobra.Command) {
	o := client.LogsOptions{Stdout: true, Stderr: true}
	cmd.Use += " [OPTIONS] CONTAINER"
	cmd.Args = a.arguments(1, 1)
	f := cmd.Flags()
	f.BoolVar(&o.Details, "details", false, "Show what the log driver adds")
	f.BoolVarP(&o.Follow, "follow", "f", false, "Go on with what is written from now on")
	f.StringVar(&o.Since, "since", "", `Begin at a time ("2026-01-02T13:23:37Z") or so long ago ("42m")`)
	f.StringVar(&o.Until, "until", "", `End at a time ("2026-01-02T13:23:37Z") or so long ago ("42m")`)
	f.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines from the end")
	f.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show when each line was written")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.logs(cmd, args[0], o) }
}

func (a *app) logs(cmd *cobra.Command, name string, o client.LogsOptions) error {
	now := time.Now()
	var err error
	if o.Since, err = moment(o.Since, now); err != nil {
		return errdef.Invalid("--since: %w", err)
	}
	if o.Until, err = moment(o.Until, now); err != nil {
		return errdef.Invalid("--until: %w", err)
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	out, err := c.ContainerLogs(cmd.Context(), name, o)
	if err != nil {
		return err
	}
	defer out.Close()
	// A log is the container's own bytes, as they were on the terminal when it ran.
	return out.Copy(a.Stdout, a.Stderr)
}

// moment turns what a person types for a time into seconds[.nanoseconds] since the epoch: a duration before now, a
// time or date (in the local zone if it names none), or such seconds already.
func moment(s string, now time.Time) (string, error) {
	if s == "" {
		return "", nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return epoch(now.Add(-d)), nil
	}
	for _, layout := range [...]string{
		time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04Z07:00", "2006-01-02T15:04",
		"2006-01-02Z07:00", "2006-01-02",
	} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return epoch(t), nil
		}
	}
	sec, nano, _ := strings.Cut(s, ".")
	if _, err := strconv.ParseInt(sec, 10, 64); err != nil || strings.Trim(nano, "0123456789") != "" || len(nano) > 9 {
		return "", errdef.Invalid("%q is neither a time like 2026-01-02T13:23:37Z nor a duration like 42m", s)
	}
	return s, nil
}

func epoch(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }
