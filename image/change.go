package image

import (
	"encoding/json"
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"hull/errdef"
)

// Change applies instructions of a Dockerfile, as `hull import --change` takes them, and validates the result.
func (r *Run) Change(instructions []string) error {
	for _, in := range instructions {
		word, rest, _ := strings.Cut(strings.TrimSpace(in), " ")
		if err := r.change(strings.ToUpper(word), strings.TrimSpace(rest)); err != nil {
			return fmt.Errorf("change %q: %w", in, err)
		}
	}
	return r.Validate()
}

func (r *Run) change(word, rest string) (err error) {
	if rest == "" {
		return errdef.Invalid("%s requires at least one argument", word)
	}
	switch word {
	case "CMD":
		r.Cmd = command(rest)
	case "ENTRYPOINT":
		r.Entrypoint = command(rest)
	case "SHELL":
		if err := json.Unmarshal([]byte(rest), &r.Shell); err != nil {
			return errdef.Invalid("SHELL requires the arguments to be in JSON form")
		}
	case "USER":
		r.User = rest
	case "STOPSIGNAL":
		r.StopSignal = rest
	case "ONBUILD":
		r.OnBuild = append(r.OnBuild, rest)
	case "WORKDIR":
		r.WorkingDir = path.Join("/", r.WorkingDir, rest)
		if path.IsAbs(rest) {
			r.WorkingDir = path.Clean(rest)
		}
	case "ENV":
		err = pairs(rest, r.setEnv)
	case "LABEL":
		if r.Labels == nil {
			r.Labels = map[string]string{}
		}
		err = pairs(rest, func(k, v string) { r.Labels[k] = v })
	case "EXPOSE":
		r.expose(strings.Fields(rest))
	case "VOLUME":
		r.volumes(rest)
	case "HEALTHCHECK":
		r.Healthcheck, err = healthcheck(rest)
	default:
		return errdef.Invalid("%s is not a valid change command", strings.ToLower(word))
	}
	return err
}

// command reads ["a","b"], or takes anything else as a line for a shell.
func command(s string) []string {
	var list []string
	if strings.HasPrefix(s, "[") && json.Unmarshal([]byte(s), &list) == nil {
		return list
	}
	return []string{"/bin/sh", "-c", s}
}

func (r *Run) setEnv(name, value string) {
	for i, e := range r.Env {
		if n, _, _ := strings.Cut(e, "="); n == name {
			r.Env[i] = name + "=" + value
			return
		}
	}
	r.Env = append(r.Env, name+"="+value)
}

func (r *Run) expose(ports []string) {
	if r.ExposedPorts == nil {
		r.ExposedPorts = map[string]struct{}{}
	}
	for _, p := range ports {
		if !strings.Contains(p, "/") {
			p += "/tcp"
		}
		r.ExposedPorts[p] = struct{}{}
	}
}

func (r *Run) volumes(s string) {
	if r.Volumes == nil {
		r.Volumes = map[string]struct{}{}
	}
	var list []string
	if !strings.HasPrefix(s, "[") || json.Unmarshal([]byte(s), &list) != nil {
		list = strings.Fields(s)
	}
	for _, v := range list {
		r.Volumes[v] = struct{}{}
	}
}

// pairs reads a=b c="d e", or the old form: a name and, after a space, its value.
func pairs(s string, set func(k, v string)) error {
	words, err := words(s)
	if err != nil {
		return err
	}
	if name, value, ok := strings.Cut(s, " "); ok && !strings.Contains(words[0], "=") {
		set(name, strings.TrimSpace(value))
		return nil
	}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok {
			return errdef.Invalid("%q must be of the form: name=value", w)
		}
		set(k, v)
	}
	return nil
}

// words splits at spaces that are neither quoted nor behind a backslash, and takes quotes and backslashes away.
func words(s string) ([]string, error) {
	var out []string
	var w strings.Builder
	var quote byte
	in := false
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(s):
			i++
			w.WriteByte(s[i])
			in = true
		case quote != 0 && c == quote:
			quote = 0
		case quote != 0:
			w.WriteByte(c)
		case c == '"' || c == '\'':
			quote, in = c, true
		case c == ' ' || c == '\t':
			if in {
				out = append(out, w.String())
				w.Reset()
			}
			in = false
		default:
			w.WriteByte(c)
			in = true
		}
	}
	if quote != 0 {
		return nil, errdef.Invalid("unexpected end of statement while looking for matching %c", quote)
	}
	if in {
		out = append(out, w.String())
	}
	return out, nil
}

// healthcheck reads NONE, or options and CMD with a command.
func healthcheck(s string) (*Healthcheck, error) {
	h := &Healthcheck{}
	for {
		word, rest, _ := strings.Cut(s, " ")
		rest = strings.TrimSpace(rest)
		switch {
		case strings.EqualFold(word, "NONE") && rest == "":
			h.Test = []string{"NONE"}
			return h, nil
		case strings.EqualFold(word, "CMD") && rest != "":
			var list []string
			if strings.HasPrefix(rest, "[") && json.Unmarshal([]byte(rest), &list) == nil {
				h.Test = append([]string{"CMD"}, list...)
			} else {
				h.Test = []string{"CMD-SHELL", rest}
			}
			return h, nil
		case !strings.HasPrefix(word, "--"):
			return nil, errdef.Invalid("HEALTHCHECK wants NONE, or CMD and a command")
		}
		if err := h.option(word); err != nil {
			return nil, err
		}
		s = rest
	}
}

func (h *Healthcheck) option(word string) error {
	key, value, _ := strings.Cut(strings.TrimPrefix(word, "--"), "=")
	var d *time.Duration
	switch key {
	case "interval":
		d = &h.Interval
	case "timeout":
		d = &h.Timeout
	case "start-period":
		d = &h.StartPeriod
	case "start-interval":
		d = &h.StartInterval
	case "retries":
		n, err := strconv.ParseUint(value, 10, 31)
		if err != nil {
			return errdef.Invalid("%s is not a number of retries", value)
		}
		h.Retries = int(n)
		return nil
	default:
		return errdef.Invalid("unknown flag for HEALTHCHECK: %s", word)
	}
	v, err := time.ParseDuration(value)
	if err != nil || v < 0 {
		return errdef.Invalid("%s is not a duration", value)
	}
	*d = v
	return nil
}
