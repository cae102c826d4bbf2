package cli

import (
	"bufio"
	"io"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"hull/errdef"
)

// maxLine is the longest line of an env or label file. The kernel takes strings of 128 KiB.
const maxLine = 1 << 20

// environment joins the variables of files and of -e, in this order. A name without a value is passed through from
// the environment of this process. If it is not there either, a file's is left out, and -e sends the name alone, which
// takes the variable out of the image's environment.
func environment(files, vars []string) ([]string, error) {
	var env []string
	for _, name := range files {
		list, err := variableFile(name, os.LookupEnv)
		if err != nil {
			return nil, err
		}
		env = append(env, list...)
	}
	for _, v := range vars {
		name, _, set := strings.Cut(v, "=")
		if name == "" {
			return nil, errdef.Invalid("invalid environment variable: %s", v)
		}
		if value, ok := os.LookupEnv(name); ok && !set {
			v += "=" + value
		}
		env = append(env, v)
	}
	return env, nil
}

// labels joins the labels of files and of --label, in this order. One without a value is empty.
func labels(files, list []string) (map[string]string, error) {
	all := map[string]string{}
	for _, name := range files {
		lines, err := variableFile(name, func(string) (string, bool) { return "", true })
		if err != nil {
			return nil, err
		}
		list = append(lines, list...)
	}
	for _, l := range list {
		k, v, _ := strings.Cut(l, "=")
		if k == "" {
			return nil, errdef.Invalid("invalid label %q: it has no name", l)
		}
		all[k] = v
	}
	return all, nil
}

func variableFile(name string, lookup func(string) (string, bool)) ([]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, errdef.As(errdef.ErrInvalid, plainPathError(err))
	}
	defer f.Close()
	list, err := variables(f, lookup)
	if err != nil {
		return nil, errdef.Invalid("%s: %w", name, err)
	}
	return list, nil
}

// variables parses Docker's env-file format: a NAME=value a line, taken literally to the end of the line, with no
// quotes and no expansion; empty lines and those that begin with # are left out. lookup gives a value to a name alone.
func variables(r io.Reader, lookup func(string) (string, bool)) ([]string, error) {
	var list []string
	s := bufio.NewScanner(r)
	s.Buffer(nil, maxLine)
	for n := 1; s.Scan(); n++ {
		line := s.Text()
		if n == 1 {
			line = strings.TrimPrefix(line, "\ufeff")
		}
		if !utf8.ValidString(line) {
			return nil, errdef.Invalid("line %d is not UTF-8", n)
		}
		line = strings.TrimLeftFunc(line, unicode.IsSpace)
		if line == "" || line[0] == '#' {
			continue
		}
		name, value, set := strings.Cut(line, "=")
		switch {
		case name == "":
			return nil, errdef.Invalid("line %d: no variable name on line '%s'", n, line)
		case strings.ContainsFunc(name, unicode.IsSpace):
			return nil, errdef.Invalid("line %d: variable '%s' contains whitespaces", n, name)
		case strings.Contains(line, "\x00"):
			return nil, errdef.Invalid("line %d: a variable cannot contain a zero byte", n)
		}
		if !set {
			if value, set = lookup(name); !set {
				continue
			}
		}
		list = append(list, name+"="+value)
	}
	if err := s.Err(); err != nil {
		return nil, err
	}
	return list, nil
}
