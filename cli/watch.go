package cli

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// What a terminal understands, xterm and all that followed it.
const (
	screenOther = "\x1b[?1049h\x1b[?25l" // to the screen without history, no cursor
	screenBack  = "\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	lineRest    = "\x1b[K" // clear to the end of the line
	screenRest  = "\x1b[J" // and what is below
	bold        = "\x1b[1m"
	plainText   = "\x1b[0m"
)

// watchStats shows the samples in place, one a second, until somebody has seen enough. The keys that sort are in its last
// line.
func (a *app) watchStats(ctx context.Context, s *statsSampler, o statsOptions) error {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	keys := make(chan byte, 16)
	if a.screen.isTerminal() {
		if err := a.screen.raw(); err != nil {
			return err
		}
		defer a.screen.restore()
		go a.readKeys(keys) // ends with the program: a read of a terminal cannot be taken back
	}
	a.out.plain(screenOther)
	defer a.out.plain(screenBack)
	resized := make(chan struct{}, 1)
	defer a.onSignal(func(sig os.Signal) {
		if sig != unix.SIGWINCH {
			quit()
			return
		}
		select {
		case resized <- struct{}{}:
		default:
		}
	}, unix.SIGWINCH, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)()

	v := &statsView{sort: 'c', wide: o.noTrunc}
	tick := time.NewTicker(statsPeriod)
	defer tick.Stop()
	for {
		width, height := a.out.size()
		a.out.plain(v.draw(s.rows, width, height, time.Now()))
		select {
		case <-ctx.Done():
			return nil
		case k := <-keys:
			if k == 'q' || k == 3 || k == 4 || k == 27 { // ctrl-c, ctrl-d, escape
				return nil
			}
			v.key(k)
		case <-resized:
		case <-tick.C:
			if err := s.sample(ctx); err != nil {
				if ctx.Err() != nil {
					return nil
				}
				return err
			}
		}
	}
}

// readKeys sends what is typed until there is no more.
func (a *app) readKeys(to chan<- byte) {
	var b [16]byte
	for {
		n, err := a.Stdin.Read(b[:])
		for _, k := range b[:n] {
			select {
			case to <- k:
			default: // nobody types so fast
			}
		}
		if err != nil {
			return
		}
	}
}

// statsView is how the watched table looks.
type statsView struct {
	sort byte // 'c' by CPU, 'm' by memory, 'n' by name
	wide bool // whole ids
}

func (v *statsView) key(k byte) {
	if strings.IndexByte("cmn", k) >= 0 {
		v.sort = k
	}
}

// statsCell is one column of the watched table; those with the highest rank are left out first when it is too wide.
type statsCell struct {
	header string
	rank   int
	right  bool // numbers stand at the right
	value  func(*statsRow) string
}

func (v *statsView) columns() []statsCell {
	return []statsCell{
		{"NAME", 0, false, (*statsRow).Name},
		{"ID", 6, false, func(r *statsRow) string {
			if v.wide {
				return r.s.ID
			}
			return shortID(r.s.ID)
		}},
		{"CPU %", 0, true, (*statsRow).CPUPerc},
		{"CPU, LAST SECONDS", 3, false, func(r *statsRow) string {
			return sparkline(r.history, 20, 100*float64(max(r.s.CPUStats.OnlineCPUs, 1)))
		}},
		{"MEM", 0, true, func(r *statsRow) string { used, _, _ := strings.Cut(r.MemUsage(), " / "); return used }},
		{"LIMIT", 2, true, func(r *statsRow) string { _, limit, _ := strings.Cut(r.MemUsage(), " / "); return limit }},
		{"MEM %", 1, true, (*statsRow).MemPerc},
		{"", 4, false, func(r *statsRow) string { return bar(r.memoryShare(), 10) }},
		{"NET I/O", 5, true, (*statsRow).NetIO},
		{"BLOCK I/O", 6, true, (*statsRow).BlockIO},
		{"PIDS", 1, true, (*statsRow).PIDs},
	}
}

// draw is the whole screen. What fits neither in width nor in height is left out, and said to be.
func (v *statsView) draw(rows []*statsRow, width, height int, now time.Time) string {
	width, height = max(width, 20), max(height, 4)
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, v.order)
	columns := v.columns()
	lines := table(columns, rows)
	for rank := 6; rank > 0 && lineWidth(lines) > width; rank-- {
		columns = slices.DeleteFunc(columns, func(c statsCell) bool { return c.rank == rank })
		lines = table(columns, rows)
	}
	fit(lines, width)
	var b strings.Builder
	b.WriteString(screenHome)
	more := max(0, len(rows)-(height-2))
	for i, l := range lines[:len(lines)-more] {
		text := align(columns, lines, l)
		if i == 0 {
			text = bold + cut(text, width) + plainText
		} else {
			text = cut(text, width)
		}
		b.WriteString(text + lineRest + "\r\n")
	}
	foot := fmt.Sprintf("%s  %s", now.Format(time.TimeOnly), plural(len(rows), "container"))
	if more > 0 {
		foot += fmt.Sprintf(", %d not shown", more)
	}
	b.WriteString(screenRest + cut(foot+"   sort: c cpu  m memory  n name   q quit", width))
	return b.String()
}

func (v *statsView) order(x, y *statsRow) int {
	by := 0
	switch v.sort {
	case 'c':
		by = cmp.Compare(y.cpu, x.cpu)
	case 'm':
		by = cmp.Compare(y.memory(), x.memory())
	}
	return cmp.Or(by, cmp.Compare(x.Name(), y.Name()))
}

// table is a line of headers and one for each row. Nothing in it commands a terminal: names are the engine's.
func table(columns []statsCell, rows []*statsRow) [][]string {
	lines := make([][]string, 0, len(rows)+1)
	head := make([]string, len(columns))
	for i, c := range columns {
		head[i] = c.header
	}
	lines = append(lines, head)
	for _, r := range rows {
		line := make([]string, len(columns))
		for i, c := range columns {
			line[i] = string(visible([]byte(c.value(r))))
		}
		lines = append(lines, line)
	}
	return lines
}

func columnWidths(lines [][]string) []int {
	widths := make([]int, len(lines[0]))
	for _, l := range lines {
		for i, cell := range l {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return widths
}

// columnGap is between two columns.
const columnGap = 2

func lineWidth(lines [][]string) int {
	sum := 0
	for _, w := range columnWidths(lines) {
		sum += w + columnGap
	}
	return sum - columnGap
}

// align pads the cells of a line to the columns of all lines.
func align(columns []statsCell, lines [][]string, line []string) string {
	var b strings.Builder
	for i, w := range columnWidths(lines) {
		space := strings.Repeat(" ", w-utf8.RuneCountInString(line[i]))
		if columns[i].right {
			b.WriteString(space + line[i])
		} else {
			b.WriteString(line[i] + space)
		}
		if i < len(line)-1 {
			b.WriteString(strings.Repeat(" ", columnGap))
		}
	}
	return b.String()
}

// sparkline draws the last n values, at most whole each, as blocks of eight heights.
func sparkline(values []float64, n int, whole float64) string {
	const blocks = "▁▂▃▄▅▆▇█"
	levels := []rune(blocks)
	var b strings.Builder
	for range n - len(values) {
		b.WriteByte(' ')
	}
	for _, v := range values[max(0, len(values)-n):] {
		level := int(v / whole * float64(len(levels)))
		b.WriteRune(levels[min(max(level, 0), len(levels)-1)])
	}
	return b.String()
}

// bar fills a part of n characters.
func bar(percent float64, n int) string {
	full := min(max(int(percent/100*float64(n)+0.5), 0), n)
	return strings.Repeat("█", full) + strings.Repeat("░", n-full)
}
