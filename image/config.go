package image

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hull/errdef"
)

// Config is an image's configuration, as the OCI image specification and Docker's additions have it.
type Config struct {
	Created      *time.Time `json:"created,omitempty"`
	Author       string     `json:"author,omitempty"`
	Comment      string     `json:"comment,omitempty"`
	Architecture string     `json:"architecture"`
	Variant      string     `json:"variant,omitempty"`
	OS           string     `json:"os"`
	OSVersion    string     `json:"os.version,omitempty"`
	OSFeatures   []string   `json:"os.features,omitempty"`
	Run          Run        `json:"config"`
	RootFS       RootFS     `json:"rootfs"`
	History      []History  `json:"history,omitempty"`
}

// Run is how a container of the image runs, unless the person says otherwise.
type Run struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	Volumes      map[string]struct{} `json:"Volumes,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
	StopTimeout  *int                `json:"StopTimeout,omitempty"` // seconds
	Healthcheck  *Healthcheck        `json:"Healthcheck,omitempty"`
	OnBuild      []string            `json:"OnBuild,omitempty"`
	Shell        []string            `json:"Shell,omitempty"`
	ArgsEscaped  bool                `json:"ArgsEscaped,omitempty"`
}

// Healthcheck is a test of whether the container works. Durations are nanoseconds in JSON; 0 is the default.
type Healthcheck struct {
	Test          []string      `json:"Test,omitempty"`
	Interval      time.Duration `json:"Interval,omitempty"`
	Timeout       time.Duration `json:"Timeout,omitempty"`
	StartPeriod   time.Duration `json:"StartPeriod,omitempty"`
	StartInterval time.Duration `json:"StartInterval,omitempty"`
	Retries       int           `json:"Retries,omitempty"`
}

// RootFS names the layers, lowest first, by the digests of their uncompressed tars.
type RootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

// History is one step that made the image.
type History struct {
	Created    *time.Time `json:"created,omitempty"`
	CreatedBy  string     `json:"created_by,omitempty"`
	Author     string     `json:"author,omitempty"`
	Comment    string     `json:"comment,omitempty"`
	EmptyLayer bool       `json:"empty_layer,omitempty"`
}

// Bounds of what execve takes: one string of MAX_ARG_STRLEN, and a quarter of the usual stack for all.
const (
	maxString  = 128<<10 - 1
	maxStrings = 2 << 20
)

// Validate says whether the configuration may steer a container: it was written by strangers. The error names
// the field. (CVE-2022-23648: a VOLUME with ".." reached host paths; CVE-2026-23953: a newline in ENV another's file.)
// The user is left to whoever looks it up in the container's /etc/passwd.
func (c *Config) Validate() error {
	if c.OS != "" && c.OS != "linux" {
		return fieldError("os", "%q does not run on Linux", c.OS)
	}
	return c.Run.Validate()
}

func fieldError(field, format string, a ...any) error {
	return errdef.Invalid("invalid image configuration: %s: %s", field, fmt.Sprintf(format, a...))
}

// Validate is for the part that Config.Validate has in common with changes to it.
func (r *Run) Validate() error {
	for _, check := range []func() error{r.checkEnv, r.checkCommands, r.checkPaths, r.checkPorts, r.checkStop, r.checkHealth} {
		if err := check(); err != nil {
			return err
		}
	}
	return nil
}

func (r *Run) checkEnv() error {
	if err := checkStrings("Env", r.Env); err != nil {
		return err
	}
	for i, e := range r.Env {
		name, _, ok := strings.Cut(e, "=")
		if !ok || name == "" || hasControl(name) {
			return fieldError("Env", "entry %d (%.60q) is not NAME=VALUE", i, e)
		}
	}
	return nil
}

func (r *Run) checkCommands() error {
	for _, l := range []struct {
		field string
		list  []string
	}{{"Entrypoint", r.Entrypoint}, {"Cmd", r.Cmd}, {"Shell", r.Shell}, {"OnBuild", r.OnBuild}} {
		if err := checkStrings(l.field, l.list); err != nil {
			return err
		}
	}
	if hasControl(r.User) || len(r.User) > 512 {
		return fieldError("User", "%.60q cannot be a user", r.User)
	}
	for k, v := range r.Labels {
		if strings.IndexByte(k, 0) >= 0 || strings.IndexByte(v, 0) >= 0 {
			return fieldError("Labels", "%.60q has a NUL byte", k)
		}
	}
	return nil
}

// checkStrings makes sure that the strings can be given to execve.
func checkStrings(field string, list []string) error {
	sum := 0
	for i, s := range list {
		if strings.IndexByte(s, 0) >= 0 {
			return fieldError(field, "entry %d has a NUL byte", i)
		}
		if len(s) > maxString {
			return fieldError(field, "entry %d has %d bytes; Linux takes %d", i, len(s), maxString)
		}
		if sum += len(s) + 1; sum > maxStrings {
			return fieldError(field, "its entries have more than %d bytes; Linux does not take that", maxStrings)
		}
	}
	return nil
}

func (r *Run) checkPaths() error {
	if d := r.WorkingDir; d != "" && (!path.IsAbs(d) || strings.IndexByte(d, 0) >= 0 || len(d) > 4095) {
		return fieldError("WorkingDir", "the working directory '%.200s' is invalid, it needs to be an absolute path", d)
	}
	for v := range r.Volumes {
		if !path.IsAbs(v) || hasControl(v) || len(v) > 4095 || path.Clean(v) == "/" || hasDotDot(v) {
			return fieldError("Volumes", "%.200q cannot be the place of a volume", v)
		}
	}
	return nil
}

func hasDotDot(p string) bool {
	for part := range strings.SplitSeq(p, "/") {
		if part == ".." {
			return true
		}
	}
	return false
}

func (r *Run) checkPorts() error {
	for p := range r.ExposedPorts {
		if !isPort(p) {
			return fieldError("ExposedPorts", "%.60q is no port", p)
		}
	}
	return nil
}

// isPort: 80, 80/tcp, 8000-8010/udp.
func isPort(s string) bool {
	ports, proto, ok := strings.Cut(s, "/")
	if ok && proto != "tcp" && proto != "udp" && proto != "sctp" {
		return false
	}
	first, last, isRange := strings.Cut(ports, "-")
	a, err := strconv.ParseUint(first, 10, 16)
	if err != nil || a == 0 {
		return false
	}
	if !isRange {
		return true
	}
	b, err := strconv.ParseUint(last, 10, 16)
	return err == nil && b >= a
}

func (r *Run) checkStop() error {
	if s := r.StopSignal; s != "" && !isSignal(s) {
		return fieldError("StopSignal", "Invalid signal: %.60q", s)
	}
	if t := r.StopTimeout; t != nil && (*t < -1 || *t > 1<<31-1) {
		return fieldError("StopTimeout", "%d seconds", *t)
	}
	return nil
}

// isSignal: 1 to 64, TERM, SIGTERM, RTMIN+3.
func isSignal(s string) bool {
	if n, err := strconv.Atoi(s); err == nil {
		return n >= 1 && n <= 64
	}
	s = strings.TrimPrefix(strings.ToUpper(s), "SIG")
	for _, base := range []string{"RTMIN+", "RTMAX-"} {
		if off, ok := strings.CutPrefix(s, base); ok {
			n, err := strconv.ParseUint(off, 10, 8)
			return err == nil && n <= 30
		}
	}
	return s == "RTMIN" || s == "RTMAX" || unix.SignalNum("SIG"+s) != 0
}

func (r *Run) checkHealth() error {
	h := r.Healthcheck
	if h == nil {
		return nil
	}
	if err := checkStrings("Healthcheck.Test", h.Test); err != nil {
		return err
	}
	if len(h.Test) > 0 {
		switch h.Test[0] {
		case "", "NONE", "CMD", "CMD-SHELL":
		default:
			return fieldError("Healthcheck.Test", "unknown type %.60q", h.Test[0])
		}
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{{"Interval", h.Interval}, {"Timeout", h.Timeout}, {"StartPeriod", h.StartPeriod}, {"StartInterval", h.StartInterval}} {
		if d.value != 0 && d.value < time.Millisecond {
			return fieldError("Healthcheck."+d.field, "%s in Healthcheck cannot be less than 1ms", d.field)
		}
	}
	if h.Retries < 0 {
		return fieldError("Healthcheck.Retries", "Retries in Healthcheck cannot be negative")
	}
	return nil
}

func hasControl(s string) bool {
	return strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}
