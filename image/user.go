package image

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"hull/image/tree"
)

// passwdFile names the users of an image; maxPasswd is how much of it a runtime reads, in bytes.
const (
	passwdFile = "/etc/passwd"
	maxPasswd  = 8 << 20
)

// runsAsRoot says why what runs as user, USER[:GROUP] of a configuration, is root in t; "" if it is not. Names are looked
// up in t's own /etc/passwd. Where that cannot be read a name counts as root: a gate must not open for what it cannot see.
func runsAsRoot(t *tree.Tree, user string) string {
	name, _, _ := strings.Cut(user, ":")
	if strings.Trim(name, "0") == "" {
		return "the user is " + cmp.Or(user, "not set, so root")
	}
	if strings.Trim(name, "0123456789") == "" {
		return ""
	}
	passwd, err := readPasswd(t)
	if err != nil {
		return fmt.Sprintf("the user is %s, and it is not known who that is: %v", user, err)
	}
	switch known, root := lookUp(passwd, name); {
	case root && name != "root":
		return fmt.Sprintf("the user is %s, who is root in %s", user, passwdFile)
	case root, !known && name == "root":
		return "the user is " + user
	}
	return ""
}

// readPasswd is "" when there is no such file.
func readPasswd(t *tree.Tree) (string, error) {
	f, _, err := t.Open(passwdFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if f == nil {
		return "", errors.New(passwdFile + " is no regular file")
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPasswd+1))
	if err == nil && len(data) > maxPasswd {
		err = errors.New(passwdFile + " is too long")
	}
	return string(data), err
}

// lookUp says whether passwd has the user name, and whether any line of it gives it the number 0. A number that is missing
// or none counts as 0: runtimes differ in what they make of it.
func lookUp(passwd, name string) (known, root bool) {
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if f[0] != name {
			continue
		}
		known = true
		if len(f) < 3 {
			return true, true
		}
		if n, err := strconv.ParseUint(f[2], 10, 32); err != nil || n == 0 {
			return true, true
		}
	}
	return known, false
}
