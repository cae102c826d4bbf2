package cli

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"hull/client"
	"hull/errdef"

	"github.com/moby/moby/api/types/events"
	"github.com/spf13/cobra"
)

func buildEvents(a *app, cmd *cobra.Command) {
	var since, until, format string
	var filters filterFlag
	cmd.Use += " [OPTIONS]"
	cmd.Args = a.arguments(0, 0)
	f := cmd.Flags()
	f.StringVar(&since, "since", "", `Begin at a time ("2026-01-02T13:23:37Z") or so long ago ("42m")`)
	f.StringVar(&until, "until", "", `End at a time ("2026-01-02T13:23:37Z") or so long ago ("42m")`)
	f.VarP(&filters, "filter", "f", "Only events for which a condition like type=container, event=die, container=NAME, label=KEY holds")
	f.StringVar(&format, "format", "", "Print with a template: 'json' or 'TEMPLATE'")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return a.events(cmd.Context(), since, until, format, filters.f)
	}
}

func (a *app) events(ctx context.Context, since, until, format string, filters client.Filters) error {
	now := time.Now()
	var err error
	if since, err = moment(since, now); err != nil {
		return errdef.Invalid("--since: %w", err)
	}
	if until, err = moment(until, now); err != nil {
		return errdef.Invalid("--until: %w", err)
	}
	printEvent, err := a.eventPrinter(format)
	if err != nil {
		return err
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	defer a.dying()()
	return c.Events(ctx, client.EventsOptions{Since: since, Until: until, Filters: filters}, printEvent)
}

// eventPrinter prints an event as --format says, each with one write, so that lines stay whole in a pipe.
func (a *app) eventPrinter(format string) (func(events.Message) error, error) {
	if format == "" {
		return func(m events.Message) error {
			_, err := a.out.Write([]byte(eventLine(&m)))
			return err
		}, nil
	}
	if format == "json" {
		format = "{{json .}}"
	}
	t, err := parseTemplate(format)
	if err != nil {
		return nil, err
	}
	return func(m events.Message) error {
		var b bytes.Buffer
		if err := execute(t, &b, m); err != nil {
			return err
		}
		b.WriteByte('\n')
		_, err := a.out.Write(b.Bytes())
		return err
	}, nil
}

// eventLine is Docker's line for an event.
func eventLine(m *events.Message) string {
	var b strings.Builder
	when := time.Unix(m.Time, 0)
	if m.TimeNano != 0 {
		when = time.Unix(0, m.TimeNano)
	}
	fmt.Fprintf(&b, "%s %s %s %s", when.Format("2006-01-02T15:04:05.000000000Z07:00"), m.Type, m.Action, m.Actor.ID)
	for i, k := range sortedKeys(m.Actor.Attributes) {
		b.WriteString([]string{" (", ", "}[min(i, 1)] + k + "=" + m.Actor.Attributes[k])
	}
	if len(m.Actor.Attributes) > 0 {
		b.WriteByte(')')
	}
	b.WriteByte('\n')
	return b.String()
}
