package api

import (
	"bufio"
	"encoding/binary"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/engine"
	"hull/errdef"

	"github.com/moby/moby/api/types"
)

// containerLogs is GET /containers/{name}/logs. The header goes out before the first line, as a follower may wait
// for long.
func (s *server) containerLogs(q *request) error {
	o, err := q.logOptions()
	if err != nil {
		return err
	}
	ctx, cancel := s.whileOpen(q)
	defer cancel()
	lines, tty, err := s.engine.Logs(ctx, q.name, o)
	if err != nil {
		return err
	}
	kind := types.MediaTypeRawStream
	if !tty && q.minor >= 42 {
		kind = types.MediaTypeMultiplexedStream
	}
	q.w.Header().Set("Content-Type", kind)
	q.w.WriteHeader(http.StatusOK)
	flush := http.NewResponseController(q.w).Flush
	if o.Follow {
		_ = flush()
	}
	w := bufio.NewWriterSize(q.w, 32<<10)
	for line, err := range lines {
		if err != nil {
			s.log.Error("read log", "container", q.name, "error", err)
			break
		}
		if writeEntry(w, &line, tty, q.flag("timestamps"), q.flag("details")) != nil {
			break // the client has gone
		}
		if o.Follow && (w.Flush() != nil || flush() != nil) {
			break
		}
	}
	_ = w.Flush()
	return errAnswered
}

// writeEntry writes one line, raw with a terminal, else framed as the Docker stream format has it.
func writeEntry(w *bufio.Writer, e *engine.LogEntry, tty, stamp, details bool) error {
	prefix := ""
	if stamp {
		prefix = e.Time.UTC().Format(stampLayout) + " "
	}
	if details {
		prefix += detailText(e.Attrs) + " "
	}
	if !tty {
		stream := byte(1)
		if e.Stream == "stderr" {
			stream = 2
		}
		_, _ = w.Write(frameHead(stream, len(prefix)+len(e.Line)))
	}
	_, _ = w.WriteString(prefix)
	_, err := w.WriteString(e.Line) // a bufio.Writer keeps its first error
	return err
}

// detailText is a line's attributes as Docker writes them: escaped as in a query, joined by commas.
func detailText(attrs map[string]string) string {
	var pairs []string
	for _, k := range slices.Sorted(maps.Keys(attrs)) {
		pairs = append(pairs, url.QueryEscape(k)+"="+url.QueryEscape(attrs[k]))
	}
	return strings.Join(pairs, ",")
}

// frameHead begins a frame of the Docker stream format: which stream, three zero, the length big-endian.
func frameHead(stream byte, size int) []byte {
	head := make([]byte, 8)
	head[0] = stream
	binary.BigEndian.PutUint32(head[4:], uint32(size))
	return head
}

// stampLayout is RFC 3339 with all nine digits, so that lines stay aligned.
const stampLayout = "2006-01-02T15:04:05.000000000Z07:00"

func (q *request) logOptions() (o engine.LogOptions, err error) {
	o = engine.LogOptions{Stdout: q.flag("stdout"), Stderr: q.flag("stderr"), Follow: q.flag("follow"), Tail: -1}
	if t := q.query("tail"); t != "" && t != "all" {
		// A number that cannot be read means all, as in Docker.
		if n, err := strconv.Atoi(t); err == nil && n >= 0 {
			o.Tail = n
		}
	}
	if o.Since, err = parseTime("since", q.query("since")); err != nil {
		return o, err
	}
	o.Until, err = parseTime("until", q.query("until"))
	return o, err
}

// parseTime reads seconds since 1970, with or without a fraction; "" and "0" are no time.
func parseTime(key, v string) (time.Time, error) {
	if v == "" || v == "0" {
		return time.Time{}, nil
	}
	sec, frac, _ := strings.Cut(v, ".")
	s, err := strconv.ParseInt(sec, 10, 64)
	if err == nil && frac != "" {
		frac = (frac + "000000000")[:9]
	}
	var n int64
	if err == nil && frac != "" {
		n, err = strconv.ParseInt(frac, 10, 64)
	}
	if err != nil || n < 0 {
		return time.Time{}, errdef.Invalid("invalid value for %s: %q is not a time in seconds", key, v)
	}
	return time.Unix(s, n), nil
}
