package image

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"hull/ref"
)

// LogEntry is one change of a reference.
type LogEntry struct {
	Time     time.Time
	Old      string // digest; "" when there was none
	New      string // digest; "" when the reference was removed
	Revision string // label LabelRevision of the new image, which the log knows when the image is gone
	By       string // the command
}

// maxRevision bounds what of a stranger's label every change of a tag writes into a log, in bytes. A longer one names no
// revision.
const maxRevision = 256

// fieldRevision begins the field of a line that has the revision. Lines of older versions have none.
const fieldRevision = "revision="

// line is e as a line of a log, with its end.
func (e *LogEntry) line() string {
	revision := ""
	if e.Revision != "" && len(e.Revision) <= maxRevision {
		revision = fieldRevision + oneWord(e.Revision) + " "
	}
	return fmt.Sprintf("%s %s %s %s%s\n", e.Time.UTC().Format(time.RFC3339Nano), dashed(e.Old), dashed(e.New), revision, oneLine(e.By))
}

func parseLogLine(line string) (e LogEntry, ok bool) {
	f := strings.SplitN(line, " ", 4)
	if len(f) != 4 {
		return LogEntry{}, false
	}
	t, err := time.Parse(time.RFC3339Nano, f[0])
	if err != nil {
		return LogEntry{}, false
	}
	for i, p := range []*string{&e.Old, &e.New} {
		if f[i+1] == "-" {
			continue
		}
		if _, err := ref.ParseDigest(f[i+1]); err != nil {
			return LogEntry{}, false
		}
		*p = f[i+1]
	}
	e.Time, e.By = t, f[3]
	if rest, ok := strings.CutPrefix(f[3], fieldRevision); ok {
		var word string
		word, e.By, _ = strings.Cut(rest, " ")
		e.Revision = ofWord(word)
	}
	return e, true
}

func dashed(digest string) string {
	if digest == "" {
		return "-"
	}
	return digest
}

// oneWord is s with all that is not plain ASCII as %XX.
func oneWord(s string) string {
	var b strings.Builder
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '%' {
			fmt.Fprintf(&b, "%%%02X", c)
		} else {
			b.WriteByte(c)
		}
	}
	return b.String()
}

// ofWord is the inverse of oneWord; "" if word is damaged.
func ofWord(word string) string {
	var b strings.Builder
	for {
		plain, rest, found := strings.Cut(word, "%")
		b.WriteString(plain)
		if !found {
			return b.String()
		}
		if len(rest) < 2 {
			return ""
		}
		c, err := strconv.ParseUint(rest[:2], 16, 8)
		if err != nil {
			return ""
		}
		b.WriteByte(byte(c))
		word = rest[2:]
	}
}

// oneLine keeps what a person typed from breaking the log into lines, or a terminal.
func oneLine(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, s)
	return s[:min(len(s), 1000)]
}
