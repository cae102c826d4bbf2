package cli

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"hull/client"
	"hull/errdef"

	"github.com/moby/moby/api/types/auxprogress"
	"github.com/moby/moby/api/types/jsonstream"
)

// transfer shows how a pull or push gets on. On a terminal there is a bar for each layer that moves, and below them what
// all have moved, how fast, and how long the rest will take; a layer that is done becomes a line above. Elsewhere every
// change is a line, as with Docker; with --format json it is the engine's message.
type transfer struct {
	out   *output
	quiet bool
	json  bool
	live  bool
	now   func() time.Time

	layers []*moving // those that are not done, in the order they came up
	total  int64     // bytes of all layers whose size is known
	moved  int64     // bytes of those, and of them
	kept   int64     // were there before the first word of a layer: they say nothing of the speed
	drawn  int       // lines of bars on the screen
	last   time.Time // when they were drawn
	points []point   // of the last seconds
}

// moving is a layer on its way.
type moving struct {
	id, status     string
	current, total int64 // what is shown
	moved, size    int64 // of the network
}

// point is how much had moved at a time.
type point struct {
	at time.Time
	n  int64
}

func (a *app) newTransfer(out *output, quiet bool, format string) (*transfer, error) {
	if format != "" && format != "json" {
		return nil, errdef.Invalid("invalid value %q for --format: it takes json", format)
	}
	t := &transfer{out: out, quiet: quiet, json: format == "json", now: time.Now}
	t.live = out.terminal && !quiet && !t.json
	return t, nil
}

// say prints a line for people.
func (t *transfer) say(s string) {
	if !t.quiet && !t.json {
		t.above(s)
	}
}

// result prints what comes out in the end.
func (t *transfer) result(s string) {
	if !t.json {
		t.out.println(s)
	}
}

// show prints the messages until the work is done.
func (t *transfer) show(m *client.Messages) error {
	err := m.Each(t.message)
	t.erase()
	return err
}

func (t *transfer) message(m jsonstream.Message) {
	switch {
	case t.quiet:
	case t.json:
		if b, err := json.Marshal(m); err == nil {
			t.out.println(string(b))
		}
	case m.Aux != nil:
		t.note(*m.Aux)
	case m.ID == "":
		t.above(strings.TrimRight(m.Status, "\n"))
	case strings.HasPrefix(m.Status, "Pulling from "):
		t.above(m.ID + ": " + m.Status)
	case !t.live:
		if m.Progress == nil || m.Progress.Current == 0 {
			t.above(m.ID + ": " + m.Status)
		}
	default:
		t.layer(m)
	}
}

// note is about a push of less than was asked for.
func (t *transfer) note(aux json.RawMessage) {
	var n auxprogress.ManifestPushedInsteadOfIndex
	if json.Unmarshal(aux, &n) == nil && n.ManifestPushedInsteadOfIndex {
		t.above("Not all multiplatform-content is present and only the available single-platform image was pushed\n" +
			string(n.OriginalIndex.Digest) + " -> " + string(n.SelectedManifest.Digest))
	}
}

// above prints a line that stays, above the bars.
func (t *transfer) above(s string) {
	t.erase()
	t.out.println(s)
	t.draw()
}

// layer takes note of what a layer does.
func (t *transfer) layer(m jsonstream.Message) {
	l := t.find(m.ID)
	switch l.status = m.Status; {
	case slices.Contains([]string{"Pull complete", "Already exists", "Pushed", "Layer already exists", "Compressed"}, m.Status),
		strings.HasPrefix(m.Status, "Mounted from"):
		t.arrived(l, l.size)
		t.layers = slices.DeleteFunc(t.layers, func(o *moving) bool { return o == l })
		t.above(m.ID + ": " + m.Status)
		return
	case m.Status == "Download complete":
		l.current = l.total
		t.arrived(l, l.size)
	case m.Progress != nil && m.Progress.Total > 0:
		l.current, l.total = m.Progress.Current, m.Progress.Total
		if m.Status != "Extracting" && m.Status != "Compressing" {
			if l.size == 0 { // what is told first was there before
				l.size, l.moved = l.total, l.current
				t.total += l.size
				t.moved += l.current
				t.kept += l.current
			}
			t.arrived(l, l.current)
		}
	}
	if t.now().Sub(t.last) >= 100*time.Millisecond {
		t.erase()
		t.draw()
	}
}

func (t *transfer) find(id string) *moving {
	for _, l := range t.layers {
		if l.id == id {
			return l
		}
	}
	l := &moving{id: id}
	t.layers = append(t.layers, l)
	return l
}

// arrived says how many bytes of l have moved.
func (t *transfer) arrived(l *moving, n int64) {
	t.moved += n - l.moved
	l.moved = n
}

// rateOver is the time that the speed is the mean of.
const rateOver = 5 * time.Second

// rate is the speed in bytes a second, 0 when nothing is known of it yet.
func (t *transfer) rate() int64 {
	if t.total == 0 { // nothing moves yet
		return 0
	}
	now := t.now()
	t.points = append(t.points, point{now, t.moved - t.kept})
	for len(t.points) > 1 && now.Sub(t.points[0].at) > rateOver {
		t.points = t.points[1:]
	}
	first := t.points[0]
	if span := now.Sub(first.at); span >= 200*time.Millisecond {
		return int64(float64(t.moved-t.kept-first.n) / span.Seconds())
	}
	return 0
}

func (t *transfer) draw() {
	if !t.live || len(t.layers) == 0 {
		return
	}
	t.last = t.now()
	width, height := t.out.size()
	lines := t.bars(width, max(1, height-3))
	for _, l := range lines {
		t.out.println(cut(l, width-1))
	}
	t.drawn = len(lines)
}

// bars are the lines for what moves, at most n of them and one for all.
func (t *transfer) bars(width, n int) []string {
	var lines []string
	waiting := 0
	for _, l := range t.layers {
		if l.total == 0 || len(lines) == n {
			waiting++
			continue
		}
		lines = append(lines, l.bar(width))
	}
	sum := t.sum()
	if waiting > 0 {
		sum += fmt.Sprintf(", %d waiting", waiting)
	}
	return append(lines, sum)
}

// sum is the line for all.
func (t *transfer) sum() string {
	s := size(t.moved) + " of " + size(t.total)
	rate := t.rate()
	if left := t.total - t.moved; rate > 0 && left > 0 {
		s += fmt.Sprintf(", %s/s, %s left", size(rate), (time.Duration(left/rate+1) * time.Second).String())
	}
	return s
}

// bar is the line of one layer: what happens to it, how far that is, and the bytes.
func (l *moving) bar(width int) string {
	head := fmt.Sprintf("%s: %-11s ", l.id, l.status)
	tail := fmt.Sprintf(" %8s / %s", size(l.current), size(l.total))
	room := min(40, width-len(head)-len(tail)-3)
	if room < 5 {
		return head + strings.TrimSpace(tail)
	}
	full := int(min(int64(room), int64(room)*l.current/l.total))
	bar := strings.Repeat("=", full)
	if full < room {
		bar += ">" + strings.Repeat(" ", room-full-1)
	}
	return head + "[" + bar + "]" + tail
}

func (t *transfer) erase() {
	if t.drawn > 0 {
		t.out.plain(fmt.Sprintf("\x1b[%dA\x1b[J", t.drawn))
		t.drawn = 0
	}
}
