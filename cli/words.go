package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
)

// shortID is what people are shown of an id: 12 digits, without the name of the hash.
func shortID(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		id = hex
	}
	if len(id) > 12 {
		return id[:12]
	}
	return id
}

// ago is the age of t in words.
func ago(t, now time.Time) string {
	if t.IsZero() || t.Unix() == 0 {
		return "N/A"
	}
	return units.HumanDuration(now.Sub(t)) + " ago"
}

// size is a number of bytes in decimal units, three digits.
func size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// ellipsis shortens s to at most n characters as Docker does.
func ellipsis(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	if n <= 1 {
		return string(r[:n])
	}
	return string(r[:n-1]) + "…"
}

// labelText is how labels stand in one column.
func labelText(m map[string]string) string {
	var list []string
	for _, k := range sortedKeys(m) {
		list = append(list, fmt.Sprintf("%s=%s", k, m[k]))
	}
	return strings.Join(list, ",")
}

// knownNumber is a count; a server that did not count says -1.
func knownNumber(n int64) string {
	if n < 0 {
		return "N/A"
	}
	return strconv.FormatInt(n, 10)
}
