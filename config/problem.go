package config

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"hull/errdef"
)

// problem is one thing that is wrong, with the line it stands on when that is another than its key's.
type problem struct {
	line int
	text string
}

func (p *problem) Error() string { return p.text }

// mistake is a problem on the line of whoever reports it.
func mistake(format string, args ...any) error { return &problem{text: fmt.Sprintf(format, args...)} }

// mistakeAt is a problem of v.
func mistakeAt(v *value, format string, args ...any) error {
	return &problem{v.line, fmt.Sprintf(format, args...)}
}

// say puts the name of the key before what is wrong with its value.
func say(key string, err error) error {
	var p *problem
	if errors.As(err, &p) {
		return &problem{p.line, key + ": " + p.text}
	}
	return mistake("%s: %v", key, err)
}

// problems collects all that is wrong with one file.
type problems struct {
	file string
	list []problem
}

func (p *problems) add(line int, err error) {
	var one *problem
	if !errors.As(err, &one) {
		one = &problem{text: err.Error()}
	}
	p.list = append(p.list, problem{cmp.Or(one.line, line), one.text})
}

// err is nil when nothing is wrong.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	slices.SortStableFunc(p.list, func(a, b problem) int { return cmp.Compare(a.line, b.line) })
	var lines []string
	for _, one := range p.list {
		lines = append(lines, fmt.Sprintf("%s:%d: %s", p.file, max(one.line, 1), one.text))
	}
	return errdef.As(errdef.ErrInvalid, errors.New(strings.Join(lines, "\n")))
}

// unknown says that there is no such key, and which one may have been meant.
func unknown(name string) error {
	best, near := "", 3
	for i := range Keys {
		if d := distance(name, Keys[i].Name); d < near {
			best, near = Keys[i].Name, d
		}
	}
	if best != "" {
		return mistake("unknown key %s: did you mean %s?", name, best)
	}
	return mistake("unknown key %s", name)
}

// distance is how many bytes have to be added, removed or replaced to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := last
			if a[i] != b[j] {
				replaced++
			}
			last = row[j+1]
			row[j+1] = min(replaced, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
