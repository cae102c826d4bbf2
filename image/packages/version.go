package packages

import "strings"

// compareVersions returns -1, 0 or 1 as a is older than, as old as or newer than b. It is the order of dpkg, into which
// the other kinds are translated: what comes before a release gets a tilde, which sorts before the end.
func compareVersions(kind, a, b string) int {
	if kind == "rpm" || kind == "deb" {
		return comparePackaged(a, b)
	}
	return compareParts(normal(kind, a), normal(kind, b))
}

// comparePackaged compares [epoch:]version[-release].
func comparePackaged(a, b string) int {
	epochA, a := cutEpoch(a)
	epochB, b := cutEpoch(b)
	if c := compareParts(epochA, epochB); c != 0 {
		return c
	}
	upA, relA := cutRelease(a)
	upB, relB := cutRelease(b)
	if c := compareParts(upA, upB); c != 0 {
		return c
	}
	return compareParts(relA, relB)
}

func cutEpoch(s string) (epoch, rest string) {
	if epoch, rest, ok := strings.Cut(s, ":"); ok {
		return epoch, rest
	}
	return "0", s
}

func cutRelease(s string) (version, release string) {
	if i := strings.LastIndexByte(s, '-'); i >= 0 {
		return s[:i], s[i+1:]
	}
	return s, ""
}

// normal turns what comes before a release into a tilde.
func normal(kind, s string) string {
	s = strings.TrimPrefix(s, "v")
	switch kind {
	case "apk":
		for _, early := range []string{"_alpha", "_beta", "_pre", "_rc"} {
			s = strings.Replace(s, early, "~"+early[1:], 1)
		}
	case "go", "npm":
		s, _, _ = strings.Cut(s, "+")
		s = strings.Replace(s, "-", "~", 1)
		if i := strings.Index(s, "rc"); kind == "go" && i > 0 && s[i-1] != '~' { // Go itself: 1.24rc1
			s = s[:i] + "~" + s[i:]
		}
	case "python":
		s, _, _ = strings.Cut(strings.ToLower(s), "+")
		for _, early := range []string{".dev", "a", "b", "rc"} {
			if i := strings.Index(s, early); i > 0 && s[i-1] >= '0' && s[i-1] <= '9' {
				return s[:i] + "~" + strings.TrimPrefix(s[i:], ".")
			}
		}
	}
	return s
}

// compareParts compares runs of other characters and runs of digits in turn: digits as numbers, letters before all else,
// a tilde before the end.
func compareParts(a, b string) int {
	for a != "" || b != "" {
		for a != "" && !isDigit(a[0]) || b != "" && !isDigit(b[0]) {
			if c := rank(a) - rank(b); c != 0 {
				return sign(c)
			}
			a, b = a[1:], b[1:]
		}
		var x, y string
		x, a = cutNumber(a)
		y, b = cutNumber(b)
		if len(x) != len(y) {
			return sign(len(x) - len(y))
		}
		if c := strings.Compare(x, y); c != 0 {
			return c
		}
	}
	return 0
}

// rank orders the first character of what may have none. A digit ends a run as the end does.
func rank(s string) int {
	switch {
	case s == "" || isDigit(s[0]):
		return 0
	case s[0] == '~':
		return -1
	case 'a' <= s[0] && s[0] <= 'z' || 'A' <= s[0] && s[0] <= 'Z':
		return int(s[0])
	}
	return int(s[0]) + 256
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// cutNumber takes the leading digits off, without zeros before them.
func cutNumber(s string) (number, rest string) {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return strings.TrimLeft(s[:n], "0"), s[n:]
}

func sign(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}
