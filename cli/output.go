package cli

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// output is stdout or stderr. On a terminal, control characters become visible: a label or a name must not move
// the cursor, change the title or fill the clipboard. Anywhere else bytes pass unchanged.
type output struct {
	f        *os.File
	terminal bool
	colours  bool
}

// newOutput takes colours for wanted on a terminal that has them, unless NO_COLOR (https://no-color.org) says otherwise.
func newOutput(f *os.File) *output {
	o := &output{f: f, terminal: isTerminal(f)}
	o.colours = o.terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return o
}

func isTerminal(f *os.File) bool {
	if f == nil {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (o *output) Write(p []byte) (int, error) {
	if !o.terminal {
		return o.f.Write(p)
	}
	if _, err := o.f.Write(visible(p)); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (o *output) printf(format string, args ...any) { fmt.Fprintf(o, format, args...) }
func (o *output) println(args ...any)               { fmt.Fprintln(o, args...) }

// plain writes a sequence of our own, such as moving up a line, past the escaping.
func (o *output) plain(s string) { o.f.WriteString(s) }

// size is the terminal's width and height in characters, 0 when there is none.
func (o *output) size() (width, height int) {
	if !o.terminal {
		return 0, 0
	}
	return terminalSize(o.f)
}

func terminalSize(f *os.File) (width, height int) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(ws.Col), int(ws.Row)
}

// visible writes control characters other than tab and newline as \x1b or \u202e: also C1 controls, invalid UTF-8
// (which some terminals read as C1), and the characters that reorder text.
func visible(p []byte) []byte {
	if !hidesSomething(p) {
		return p
	}
	var b bytes.Buffer
	for len(p) > 0 {
		r, n := utf8.DecodeRune(p)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, p[0])
		case hidden(r):
			q := strconv.QuoteRuneToASCII(r)
			b.WriteString(q[1 : len(q)-1])
		default:
			b.Write(p[:n])
		}
		p = p[n:]
	}
	return b.Bytes()
}

func hidesSomething(p []byte) bool {
	for i := 0; i < len(p); {
		if c := p[i]; c < utf8.RuneSelf {
			if hidden(rune(c)) {
				return true
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(p[i:])
		if (r == utf8.RuneError && n == 1) || hidden(r) {
			return true
		}
		i += n
	}
	return false
}

// hidden says whether r does something other than appear.
func hidden(r rune) bool {
	if r == '\n' || r == '\t' {
		return false
	}
	if r < 0x20 || r == 0x7f {
		return true
	}
	return r >= 0x80 && (unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Bidi_Control, r) || r == 0x2028 || r == 0x2029)
}
