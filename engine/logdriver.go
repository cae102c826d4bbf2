package engine

import (
	"bytes"
	"context"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"hull/errdef"
	"hull/monitor"
)

// logOptions are those of each log driver, beside the ones that all have.
func logOptions(driver string) (string, bool) {
	const files, extra = "max-size max-file compress", " labels labels-regex env env-regex tag"
	switch driver {
	case monitor.LogJSON, monitor.LogLocal:
		return files + extra, true
	case monitor.LogJournald:
		return "cache-disabled cache-max-size cache-max-file cache-compress" + extra, true
	case monitor.LogSyslog:
		return "cache-disabled cache-max-size cache-max-file cache-compress syslog-address syslog-facility syslog-format " +
			"syslog-tls-ca-cert syslog-tls-cert syslog-tls-key syslog-tls-skip-verify" + extra, true
	case monitor.LogNone:
		return files + extra, true
	}
	return "", false
}

// Bounds of what log drivers keep, where nobody says otherwise: Docker's, but for json-file, which is unbounded there.
const (
	localMaxSize  = 20 << 20
	localMaxFile  = 5
	bufferDefault = 1 << 20
)

// logConfig reads a log driver and its options, as far as they do not depend on the container. Logs are bounded unless
// somebody says otherwise.
func logConfig(l *Log) (monitor.LogConfig, error) {
	out := monitor.LogConfig{Driver: l.Driver}
	if out.Driver == "" {
		out.Driver = monitor.LogJSON
	}
	known, ok := logOptions(out.Driver)
	if !ok {
		return out, errdef.NotImplemented("log driver %q is not there: this Hull has json-file, local, none, journald and syslog", clip(l.Driver))
	}
	if out.Driver != monitor.LogJSON {
		out.MaxSize, out.MaxFile, out.Compress = localMaxSize, localMaxFile, out.Driver != monitor.LogNone
	}
	if out.Driver == monitor.LogSyslog {
		out.Syslog = new(monitor.SyslogConfig)
		if err := syslogConfig(out.Syslog, l.Options); err != nil {
			return out, err
		}
	}
	for _, k := range slices.Sorted(maps.Keys(l.Options)) {
		if k != "mode" && k != "max-buffer-size" && !contains(known, k) {
			return out, errdef.Invalid("unknown log opt '%s' for %s log driver", clip(k), out.Driver)
		}
		if err := logOption(&out, k, l.Options[k]); err != nil {
			return out, err
		}
	}
	switch {
	case out.Buffer > 0 && !out.NonBlocking:
		return out, errdef.Invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
	case out.Compress && out.MaxFile == 1 && l.Options["compress"] != "":
		return out, errdef.Invalid("compress cannot be true when max-file is less than 2")
	}
	if out.NonBlocking && out.Buffer == 0 {
		out.Buffer = bufferDefault
	}
	return out, nil
}

func logOption(out *monitor.LogConfig, k, v string) (err error) {
	invalid := func(want string) error { return errdef.Invalid("invalid log option %s: %q %s", k, clip(v), want) }
	switch k {
	case "max-size", "cache-max-size":
		if out.MaxSize, err = parseSize(v); err != nil {
			return invalid("is not a size such as 10m")
		}
	case "max-file", "cache-max-file":
		if out.MaxFile, err = strconv.Atoi(v); err != nil || out.MaxFile < 1 {
			return invalid("must be a number above 0")
		}
	case "compress", "cache-compress":
		if out.Compress, err = strconv.ParseBool(v); err != nil {
			return invalid("is neither true nor false")
		}
	case "cache-disabled":
		if out.NoCache, err = strconv.ParseBool(v); err != nil {
			return invalid("is neither true nor false")
		}
	case "mode":
		if !contains("blocking non-blocking", v) {
			return errdef.Invalid("logger: logging mode not supported: %s", clip(v))
		}
		out.NonBlocking = v == "non-blocking"
	case "max-buffer-size":
		if out.Buffer, err = parseSize(v); err != nil || out.Buffer < 1 {
			return invalid("is not a size such as 1m")
		}
	case "labels-regex", "env-regex":
		if _, err := regexp.Compile(v); err != nil {
			return invalid("is not a regular expression")
		}
	case "tag":
		_, err = parseTag(v)
	}
	return err
}

// syslogConfig reads the options that are syslog's own.
func syslogConfig(s *monitor.SyslogConfig, o map[string]string) error {
	s.Network = "local"
	if a := o["syslog-address"]; a != "" {
		u, err := url.Parse(a)
		if err != nil {
			return errdef.Invalid("invalid log option syslog-address: %w", err)
		}
		switch u.Scheme {
		case "unix", "unixgram":
			s.Network, s.Address = u.Scheme, u.Path
			if _, err := os.Stat(u.Path); err != nil {
				return errdef.Invalid("invalid log option syslog-address: %w", err)
			}
		case "tcp", "udp", "tcp+tls":
			s.Network, s.Address = u.Scheme, u.Host
			if _, _, err := net.SplitHostPort(u.Host); err != nil {
				s.Address = net.JoinHostPort(strings.Trim(u.Host, "[]"), "514")
			}
			if u.Hostname() == "" {
				return errdef.Invalid("invalid log option syslog-address: %q has no host", clip(a))
			}
		default:
			return errdef.Invalid("syslog-address should be in form proto://address, got %s", clip(a))
		}
	}
	s.Facility = 3 // daemon
	if f := o["syslog-facility"]; f != "" {
		names := [...]string{"kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv",
			"ftp", "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"}
		n, err := strconv.Atoi(f)
		if err != nil {
			n = slices.Index(names[:], f)
		}
		if n < 0 || n > 23 {
			return errdef.Invalid("invalid syslog facility: %q", clip(f))
		}
		s.Facility = n
	}
	if s.Format = o["syslog-format"]; !contains("rfc3164 rfc5424 rfc5424micro", s.Format) && s.Format != "" {
		return errdef.Invalid("invalid syslog format: %q: there are rfc3164, rfc5424 and rfc5424micro", clip(s.Format))
	}
	return nil
}

// logFor completes the configuration for a start of the container.
func (e *Engine) logFor(ctx context.Context, c *Container) (monitor.LogConfig, error) {
	out, err := logConfig(&c.Host.Log)
	if err != nil || out.Driver == monitor.LogNone {
		return out, err
	}
	out.Attrs = logAttributes(c)
	tag, err := c.logTag()
	if err != nil {
		return out, err
	}
	switch out.Driver {
	case monitor.LogJournald:
		out.Fields = journalFields(c, tag, out.Attrs)
	case monitor.LogSyslog:
		out.Syslog.Tag = tag
		return out, e.syslogFor(ctx, c, out.Syslog)
	default:
		if c.Host.Log.Options["tag"] != "" {
			out.Attrs["tag"] = tag
		}
	}
	return out, nil
}

// syslogFor finds the address of the server: the monitor asks no name server.
func (e *Engine) syslogFor(ctx context.Context, c *Container, s *monitor.SyslogConfig) (err error) {
	if s.Hostname, err = os.Hostname(); err != nil {
		return err
	}
	if !contains("tcp udp tcp+tls", s.Network) {
		return nil
	}
	host, port, err := net.SplitHostPort(s.Address)
	if err != nil {
		return err
	}
	if s.Network == "tcp+tls" {
		if len(e.opt.Self) == 0 {
			return errdef.Unavailable("syslog over TLS needs the program hull")
		}
		s.Relay = slices.Concat(e.opt.Self, []string{"event", "log-relay"}, relayFlags(c.Host.Log.Options), []string{s.Address})
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return errdef.Unavailable("log driver syslog: %w", err)
	}
	s.Address = net.JoinHostPort(addrs[0].String(), port)
	return nil
}

func relayFlags(o map[string]string) (flags []string) {
	for _, k := range []string{"ca-cert", "cert", "key", "skip-verify"} {
		if v := o["syslog-tls-"+k]; v != "" {
			flags = append(flags, "--"+k+"="+v)
		}
	}
	return flags
}

// logAttributes are the labels and variables that go with each line.
func logAttributes(c *Container) map[string]string {
	o := c.Host.Log.Options
	attrs := map[string]string{}
	pick := func(names, pattern string, have map[string]string) {
		for name := range strings.SplitSeq(names, ",") {
			if v, ok := have[name]; ok {
				attrs[name] = v
			}
		}
		re, err := regexp.Compile(pattern)
		if pattern == "" || err != nil {
			return
		}
		for name, v := range have {
			if re.MatchString(name) {
				attrs[name] = v
			}
		}
	}
	env := make(map[string]string, len(c.Config.Env))
	for _, kv := range c.Config.Env {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	pick(o["labels"], o["labels-regex"], c.Config.Labels)
	pick(o["env"], o["env-regex"], env)
	return attrs
}

// journalFields are those of each entry in the journal that do not change, as Docker names them.
func journalFields(c *Container, tag string, attrs map[string]string) map[string]string {
	fields := map[string]string{
		"CONTAINER_ID": c.ID[:12], "CONTAINER_ID_FULL": c.ID, "CONTAINER_NAME": c.Name, "CONTAINER_TAG": tag,
		"IMAGE_NAME": c.Config.Image, "SYSLOG_IDENTIFIER": tag,
	}
	for k, v := range attrs {
		if name := fieldName(k); name != "" && !meant(name) {
			fields[name] = v
		}
	}
	return fields
}

// meant reports whether a field means something to the journal or to who reads it, systemd.journal-fields(7), or is one
// of ours: a label of an image is not to speak in the name of the system.
func meant(field string) bool {
	switch field {
	case "MESSAGE", "MESSAGE_ID", "PRIORITY", "ERRNO", "TID", "DOCUMENTATION", "UNIT", "USER_UNIT", "INVOCATION_ID", "USER_INVOCATION_ID", "IMAGE_NAME":
		return true
	}
	for _, family := range [...]string{"CODE_", "SYSLOG_", "COREDUMP_", "OBJECT_", "CONTAINER_"} {
		if strings.HasPrefix(field, family) {
			return true
		}
	}
	return false
}

// maxField is how long the name of a field may be; the journal throws longer ones away.
const maxField = 64

// fieldName turns the name of a label into one the journal takes: A to Z, digits and underscores, and no underscore
// first, for those are the journal's own.
func fieldName(s string) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, s)
	name = strings.TrimLeft(name, "_0123456789")
	return name[:min(len(name), maxField)]
}

// tagInfo has the fields and methods that templates of tags know.
type tagInfo struct {
	c *Container
}

func (t tagInfo) ID() string          { return t.c.ID[:12] }
func (t tagInfo) FullID() string      { return t.c.ID }
func (t tagInfo) Name() string        { return t.c.Name }
func (t tagInfo) ImageName() string   { return t.c.Config.Image }
func (t tagInfo) ImageFullID() string { return t.c.Image }
func (t tagInfo) ImageID() string     { return clipID(strings.TrimPrefix(t.c.Image, "sha256:")) }
func (t tagInfo) DaemonName() string  { return "hull" }
func (t tagInfo) Command() string {
	return strings.Join(slices.Concat(t.c.Config.Entrypoint, t.c.Config.Cmd), " ")
}

func clipID(s string) string { return s[:min(12, len(s))] }

func parseTag(s string) (*template.Template, error) {
	t, err := template.New("log-tag").Parse(s)
	if err != nil {
		return nil, errdef.Invalid("invalid log option tag: %w", err)
	}
	return t, nil
}

// logTag renders the option tag; without one it is the short id.
func (c *Container) logTag() (string, error) {
	s := c.Host.Log.Options["tag"]
	if s == "" {
		return c.ID[:12], nil
	}
	t, err := parseTag(s)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := t.Execute(&b, tagInfo{c}); err != nil {
		return "", errdef.Invalid("invalid log option tag: %w", err)
	}
	// It becomes part of a line of a protocol.
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r == 0x7f {
			return '_'
		}
		return r
	}, b.String()), nil
}

// logDir is where the lines of a container are kept.
func (e *Engine) logDir(c *Container) string { return filepath.Join(e.dir(c.ID), monitor.LogDir) }

// parseSize reads "10m"; units are powers of 1024, as in Docker. -1 is unlimited.
func parseSize(s string) (int64, error) {
	if s == "-1" {
		return -1, nil
	}
	num := strings.TrimRight(strings.ToLower(s), "bkmgti")
	n, err := strconv.ParseFloat(num, 64)
	if err != nil || !(n > 0) { // NaN is not above 0 either
		return 0, errdef.Invalid("invalid size: %q", clip(s))
	}
	shift := 0
	switch unit := strings.ToLower(s[len(num):]); unit {
	case "", "b":
	case "k", "kb", "kib":
		shift = 10
	case "m", "mb", "mib":
		shift = 20
	case "g", "gb", "gib":
		shift = 30
	case "t", "tb", "tib":
		shift = 40
	default:
		return 0, errdef.Invalid("invalid size: %q", clip(s))
	}
	if n *= float64(int64(1) << shift); n > 1<<62 {
		return 0, errdef.Invalid("invalid size: %q", clip(s))
	}
	return int64(n), nil
}
