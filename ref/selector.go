package ref

import (
	"strconv"
	"strings"
	"time"

	"hull/errdef"
)

// Selector picks one of the values a reference had: the N-th before the present one, or that at a time.
type Selector struct {
	N    int           // when neither of the others is set
	Ago  time.Duration // > 0: what it was that long ago
	Time time.Time     // not zero: what it was then
}

// Cut splits "name@{selector}". ok is false, and name all of s, when there is no selector. A selector is
//
//	3                        the third value before the present one; 0 is the present one
//	90s 20m 2h 3d 1w 1h30m   how long ago ("2h ago" is accepted too); yesterday is 24h
//	2026-11-22, 2026-11-22 15:04[:05] (local time), 2026-11-22T15:04:05Z
func Cut(s string) (name string, at Selector, ok bool, err error) {
	i := strings.LastIndex(s, "@{")
	if i < 0 || !strings.HasSuffix(s, "}") {
		return s, Selector{}, false, nil
	}
	at, err = parseSelector(s[i+2 : len(s)-1])
	return s[:i], at, true, err
}

// At is the time the selector means, seen from now; ok is false if it counts values.
func (s Selector) At(now time.Time) (t time.Time, ok bool) {
	switch {
	case s.Ago > 0:
		return now.Add(-s.Ago), true
	case !s.Time.IsZero():
		return s.Time, true
	}
	return time.Time{}, false
}

func parseSelector(s string) (Selector, error) {
	if s == "yesterday" {
		return Selector{Ago: 24 * time.Hour}, nil
	}
	if n, err := strconv.ParseUint(s, 10, 31); err == nil {
		return Selector{N: int(n)}, nil
	}
	if d, ok := ParseAge(strings.TrimSuffix(s, " ago")); ok && d > 0 {
		return Selector{Ago: d}, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil && !t.IsZero() {
		return Selector{Time: t}, nil
	}
	for _, layout := range []string{"2006-01-02", "2006-01-02 15:04", "2006-01-02 15:04:05"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil && !t.IsZero() {
			return Selector{Time: t}, nil
		}
	}
	if len(s) > 60 {
		s = s[:60] + "..."
	}
	return Selector{}, errdef.Invalid("invalid selector @{%s}: want a number (@{1}), an age (@{2h}, @{3d}, @{yesterday}) or a date (@{2006-01-02})", s)
}

// ParseAge adds up parts like 14d or 1h30m: seconds, minutes, hours, days and weeks. (time.ParseDuration knows neither days
// nor weeks, but fractions and signs.)
func ParseAge(s string) (sum time.Duration, ok bool) {
	ok = s != ""
	for s != "" {
		i := 0
		for i < len(s) && '0' <= s[i] && s[i] <= '9' {
			i++
		}
		if i == len(s) {
			return 0, false
		}
		n, err := strconv.ParseUint(s[:i], 10, 31)
		unit := unitOf(s[i])
		if err != nil || unit == 0 || time.Duration(n) > (1<<62)/unit || sum > 1<<62-time.Duration(n)*unit {
			return 0, false
		}
		sum += time.Duration(n) * unit
		s = s[i+1:]
	}
	return sum, ok
}

func unitOf(c byte) time.Duration {
	switch c {
	case 's':
		return time.Second
	case 'm':
		return time.Minute
	case 'h':
		return time.Hour
	case 'd':
		return 24 * time.Hour
	case 'w':
		return 7 * 24 * time.Hour
	}
	return 0
}
