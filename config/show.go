package config

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// stringOf is what a setting says, and "" for nothing.
func stringOf[T any](v T) string {
	switch v := any(v).(type) {
	case interface{ IsValid() bool }:
		if !v.IsValid() {
			return ""
		}
	case *bool:
		if v == nil {
			return ""
		}
		return strconv.FormatBool(*v)
	case *time.Duration:
		if v == nil {
			return ""
		}
		return v.String()
	}
	return fmt.Sprint(v)
}

func nonzero(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

func pairs(m map[string]string) string {
	var out []string
	for k, v := range m {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func showPools(pools []Pool) string {
	var out []string
	for _, p := range pools {
		out = append(out, fmt.Sprintf("%s in networks of /%d", p.Base, p.Size))
	}
	return strings.Join(out, ", ")
}

func showUlimits(list []Ulimit) string {
	var out []string
	for _, u := range list {
		out = append(out, fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard))
	}
	return strings.Join(out, ", ")
}

func showRuntimes(list []Runtime) string {
	var out []string
	for _, r := range list {
		out = append(out, r.Name+"="+strings.Join(append([]string{r.Path}, r.Args...), " "))
	}
	return strings.Join(out, ", ")
}

// HidePassword is a URL as it may be shown.
func HidePassword(s string) string {
	if u, err := url.Parse(s); err == nil {
		return u.Redacted()
	}
	return s
}
