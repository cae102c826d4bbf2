package registry

import (
	"strings"
)

// challenge is one way to be let in that a host offers.
type challenge struct {
	scheme string // in lower case
	params map[string]string
}

// maxChallenges bounds what is looked at.
const maxChallenges = 16

// parseChallenges reads WWW-Authenticate headers (RFC 9110, 11.6.1): a list of schemes, each with a list of parameters,
// both parted by commas. What it cannot read ends the header it stands in.
func parseChallenges(headers []string) (out []challenge) {
	for _, h := range headers {
		for h != "" && len(out) < maxChallenges {
			var scheme string
			scheme, h = word(strings.TrimLeft(h, " \t,"))
			if scheme == "" {
				break
			}
			c := challenge{scheme: strings.ToLower(scheme), params: map[string]string{}}
			h = c.read(h)
			out = append(out, c)
		}
	}
	return out
}

// read takes the parameters and returns what follows them: the next challenge, or nothing.
func (c *challenge) read(s string) (rest string) {
	for {
		s = strings.TrimLeft(s, " \t,")
		name, after := word(s)
		after = strings.TrimLeft(after, " \t")
		if name == "" || !strings.HasPrefix(after, "=") {
			return s // a scheme, or the end
		}
		value, after, ok := quoted(strings.TrimLeft(after[1:], " \t"))
		if !ok {
			return ""
		}
		if name = strings.ToLower(name); c.params[name] == "" {
			c.params[name] = value
		}
		s = after
	}
}

// word takes a token off the beginning of s.
func word(s string) (word, rest string) {
	i := strings.IndexFunc(s, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || strings.ContainsRune(`()<>@,;:\"/[]?={}`, r)
	})
	if i < 0 {
		i = len(s)
	}
	return s[:i], s[i:]
}

// quoted takes a text in quotes, or a token, off the beginning of s.
func quoted(s string) (value, rest string, ok bool) {
	if !strings.HasPrefix(s, `"`) {
		// Some send URLs without quotes.
		i := strings.IndexAny(s, ", \t\"")
		if i < 0 {
			i = len(s)
		}
		return s[:i], s[i:], true
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], true
		case c == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}

// nextLink is the URL of rel="next" in Link headers (RFC 8288), "" when there is none.
func nextLink(headers []string) string {
	for _, h := range headers {
		for h = strings.TrimLeft(h, " \t,"); strings.HasPrefix(h, "<"); h = strings.TrimLeft(h, " \t,") {
			target, rest, ok := strings.Cut(h[1:], ">")
			if !ok {
				break
			}
			var next bool
			next, h = isNext(rest)
			if next {
				return target
			}
		}
	}
	return ""
}

// isNext reads the parameters of a link, and returns what follows them.
func isNext(s string) (next bool, rest string) {
	for {
		s = strings.TrimLeft(s, " \t")
		if !strings.HasPrefix(s, ";") {
			return next, s
		}
		name, after := word(strings.TrimLeft(s[1:], " \t"))
		after = strings.TrimLeft(after, " \t")
		value := ""
		if strings.HasPrefix(after, "=") {
			var ok bool
			if value, after, ok = quoted(strings.TrimLeft(after[1:], " \t")); !ok {
				return next, ""
			}
		}
		if strings.EqualFold(name, "rel") && strings.Contains(" "+strings.ToLower(value)+" ", " next ") {
			next = true
		}
		s = after
	}
}
