package tree

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strings"
	"unicode/utf8"

	"hull/errdef"
)

// What Unified takes at most.
const (
	MaxText  = 4 << 20 // bytes of one file
	context3 = 3       // lines around a change, as diff -u has
)

// Text reads a file that people can read. The error says why it is none.
func Text(f *os.File, e *Entry) ([]byte, error) {
	switch {
	case f == nil:
		return nil, errdef.Invalid("is not a regular file")
	case e.Size > MaxText:
		return nil, errdef.Invalid("has %d bytes, more than the %d that are compared line by line", e.Size, MaxText)
	}
	data, err := io.ReadAll(io.LimitReader(f, MaxText))
	if err != nil {
		return nil, err
	}
	if bytes.IndexByte(data, 0) >= 0 || !utf8.Valid(data) {
		return nil, errdef.Invalid("is not text")
	}
	return data, nil
}

// Unified returns the difference of two texts in the unified format of diff -u, with the names in its head; "" if they are
// the same. It finds what patience diff finds: lines that both texts have once are kept in order, and what is between
// two of them and has no such line is shown as replaced. Its time is O(n log n) whatever the texts are.
func Unified(oldName, newName string, old, young []byte) string {
	if bytes.Equal(old, young) {
		return ""
	}
	a, b := lines(old), lines(young)
	var out strings.Builder
	fmt.Fprintf(&out, "--- %s\n+++ %s\n", oldName, newName)
	h := hunk{a: a, b: b, out: &out}
	var doneA, doneB int // lines before these are dealt with
	for _, m := range append(matches(a, b), match{len(a), len(b)}) {
		if m.a < doneA || m.b < doneB {
			continue
		}
		// The anchor grows to both sides over all lines that are the same.
		startA, startB := m.a, m.b
		for startA > doneA && startB > doneB && a[startA-1] == b[startB-1] {
			startA, startB = startA-1, startB-1
		}
		endA, endB := m.a, m.b
		for endA < len(a) && endB < len(b) && a[endA] == b[endB] {
			endA, endB = endA+1, endB+1
		}
		h.change(doneA, startA, doneB, startB)
		h.keep(startA, endA)
		doneA, doneB = endA, endB
	}
	h.flush()
	return out.String()
}

// lines splits text, each line with its end. A last line without an end says so as diff does.
func lines(text []byte) []string {
	l := strings.SplitAfter(string(text), "\n")
	if last := len(l) - 1; l[last] == "" {
		l = l[:last]
	} else {
		l[last] += "\n\\ No newline at end of file\n"
	}
	return l
}

// match is a line of a that is a line of b.
type match struct{ a, b int }

// matches returns the longest list of lines that are in both texts once and in the same order; and before them the very
// first line, where what both have at the beginning ends up.
func matches(a, b []string) []match {
	count := map[string]struct{ inA, inB, at int }{}
	for _, l := range a {
		c := count[l]
		c.inA++
		count[l] = c
	}
	for i, l := range b {
		c := count[l]
		c.inB++
		c.at = i
		count[l] = c
	}
	var unique []match
	for i, l := range a {
		if c := count[l]; c.inA == 1 && c.inB == 1 {
			unique = append(unique, match{i, c.at})
		}
	}
	return append([]match{{0, 0}}, increasing(unique)...)
}

// increasing is the longest part of list, which is in order of a, that is in order of b too: patience sorting.
func increasing(list []match) []match {
	var tops []int                  // of each pile, the index of its topmost card
	below := make([]int, len(list)) // of each card, the top of the pile to the left when it was laid
	for i, m := range list {
		pile := sort.Search(len(tops), func(k int) bool { return list[tops[k]].b >= m.b })
		below[i] = -1
		if pile > 0 {
			below[i] = tops[pile-1]
		}
		if pile == len(tops) {
			tops = append(tops, i)
		} else {
			tops[pile] = i
		}
	}
	var out []match
	if len(tops) > 0 {
		for i := tops[len(tops)-1]; i >= 0; i = below[i] {
			out = append(out, list[i])
		}
	}
	slices.Reverse(out)
	return out
}

// hunk collects changes with the lines around them.
type hunk struct {
	a, b           []string
	out            *strings.Builder
	body           []string
	startA, startB int // of the body, counted from 0
	countA, countB int
	changed        bool
	posA, posB     int
}

func (h *hunk) change(fromA, toA, fromB, toB int) {
	for _, l := range h.a[fromA:toA] {
		h.body = append(h.body, "-"+l)
	}
	for _, l := range h.b[fromB:toB] {
		h.body = append(h.body, "+"+l)
	}
	h.countA += toA - fromA
	h.countB += toB - fromB
	h.posA, h.posB = toA, toB
	h.changed = h.changed || toA > fromA || toB > fromB
}

// keep passes over lines that are the same: a few of them belong to the hunk before, a few to the next.
func (h *hunk) keep(from, to int) {
	n := to - from
	if h.changed && n > 2*context3 {
		h.lines(from, from+context3)
		h.flush()
		skipped := n - 2*context3
		h.posA, h.posB = h.posA+skipped, h.posB+skipped
		h.begin()
		h.lines(to-context3, to)
		return
	}
	if !h.changed && n > context3 {
		h.posA, h.posB = h.posA+n-context3, h.posB+n-context3
		h.begin()
		h.lines(to-context3, to)
		return
	}
	h.lines(from, to)
}

func (h *hunk) lines(from, to int) {
	for _, l := range h.a[from:to] {
		h.body = append(h.body, " "+l)
	}
	h.countA, h.countB = h.countA+to-from, h.countB+to-from
	h.posA, h.posB = h.posA+to-from, h.posB+to-from
}

func (h *hunk) begin() {
	h.body, h.changed = h.body[:0], false
	h.startA, h.startB, h.countA, h.countB = h.posA, h.posB, 0, 0
}

func (h *hunk) flush() {
	if h.changed {
		// What stands behind the last change of a hunk is at most the lines around it.
		for drop := h.trailing() - context3; drop > 0; drop-- {
			h.body = h.body[:len(h.body)-1]
			h.countA, h.countB = h.countA-1, h.countB-1
		}
		fmt.Fprintf(h.out, "@@ -%s +%s @@\n", span(h.startA, h.countA), span(h.startB, h.countB))
		for _, l := range h.body {
			h.out.WriteString(l)
		}
	}
	h.begin()
}

func (h *hunk) trailing() int {
	n := 0
	for n < len(h.body) && h.body[len(h.body)-1-n][0] == ' ' {
		n++
	}
	return n
}

// span is a place in a file as diff writes it: lines count from 1, an empty place is named by the line before it.
func span(start, count int) string {
	switch count {
	case 0:
		return fmt.Sprintf("%d,0", start)
	case 1:
		return fmt.Sprint(start + 1)
	}
	return fmt.Sprintf("%d,%d", start+1, count)
}
