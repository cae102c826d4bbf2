package tree

import (
	"fmt"
	"strings"
	"testing"
)

func TestUnified(t *testing.T) {
	number := func(skip ...int) string {
		var b strings.Builder
		for i := 1; i <= 30; i++ {
			if len(skip) > 0 && skip[0] == i {
				skip = skip[1:]
				continue
			}
			fmt.Fprintln(&b, i)
		}
		return b.String()
	}
	for _, row := range []struct{ old, young, want string }{
		{"a\n", "a\n", ""},
		{"", "a\n", "--- x\n+++ y\n@@ -0,0 +1 @@\n+a\n"},
		{"a\n", "", "--- x\n+++ y\n@@ -1 +0,0 @@\n-a\n"},
		{"a\nb\nc\n", "a\nB\nc\n", "--- x\n+++ y\n@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"},
		{"a\n", "a", "--- x\n+++ y\n@@ -1 +1 @@\n-a\n+a\n\\ No newline at end of file\n"},
		{number(), number(10), "--- x\n+++ y\n@@ -7,7 +7,6 @@\n 7\n 8\n 9\n-10\n 11\n 12\n 13\n"},
		{number(), number(2, 28), "--- x\n+++ y\n@@ -1,5 +1,4 @@\n 1\n-2\n 3\n 4\n 5\n@@ -25,6 +24,5 @@\n 25\n 26\n 27\n-28\n 29\n 30\n"},
		{number(), number(10, 16), "--- x\n+++ y\n@@ -7,13 +7,11 @@\n 7\n 8\n 9\n-10\n 11\n 12\n 13\n 14\n 15\n-16\n 17\n 18\n 19\n"},
	} {
		if got := Unified("x", "y", []byte(row.old), []byte(row.young)); got != row.want {
			t.Errorf("%q -> %q:\nwant\n%s\ngot\n%s", row.old, row.young, row.want, got)
		}
	}
}

// A difference applied to the old text makes the new one.
func FuzzUnified(f *testing.F) {
	f.Add([]byte("a\nb\nc\n"), []byte("b\nc\nd"))
	f.Add([]byte("x\nx\ny\nx\n"), []byte("x\ny\nx\nx\nz\n\n"))
	f.Fuzz(func(t *testing.T, old, young []byte) {
		if len(old)+len(young) > 10000 {
			return
		}
		diff := Unified("x", "y", old, young)
		got, err := apply(string(old), diff)
		if err != nil || got != string(young) {
			t.Errorf("%q -> %q: %v, got %q by\n%s", old, young, err, got, diff)
		}
	})
}

// apply is a strict patch(1).
func apply(old, diff string) (string, error) {
	if diff == "" {
		return old, nil
	}
	a := lines([]byte(old))
	if old == "" {
		a = nil
	}
	var out strings.Builder
	at := 0
	rest := strings.SplitAfter(strings.SplitN(diff, "\n", 3)[2], "\n")
	for i := 0; i < len(rest) && rest[i] != ""; {
		var fromA, countA, fromB, countB int
		left, right, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(rest[i], "@@ -"), " @@\n"), " +")
		if !ok {
			return "", fmt.Errorf("no head of a hunk: %q", rest[i])
		}
		for _, s := range []struct {
			text        string
			from, count *int
		}{{left, &fromA, &countA}, {right, &fromB, &countB}} {
			*s.count = 1
			if n, _ := fmt.Sscanf(s.text, "%d,%d", s.from, s.count); n == 0 {
				return "", fmt.Errorf("no place: %q", s.text)
			}
		}
		if countA > 0 {
			fromA--
		}
		for ; at < fromA; at++ {
			out.WriteString(a[at])
		}
		i++
		for countA > 0 || countB > 0 {
			line := rest[i]
			i++
			if i < len(rest) && strings.HasPrefix(rest[i], `\`) {
				line += rest[i]
				i++
			}
			if line[0] != '+' {
				if a[at] != line[1:] {
					return "", fmt.Errorf("%q is not %q", a[at], line[1:])
				}
				at++
				countA--
			}
			if line[0] != '-' {
				out.WriteString(line[1:])
				countB--
			}
		}
	}
	for ; at < len(a); at++ {
		out.WriteString(a[at])
	}
	return strings.TrimSuffix(out.String(), "\n\\ No newline at end of file\n"), nil
}
