package runtime

import (
	"bytes"
	"os"
	"strconv"
	"strings"

	"hull/errdef"
)

// credentials are who the process becomes.
type credentials struct {
	uid, gid uint32
	groups   []uint32
	home     string
}

// maxID is the highest user or group id: 2^32-1 means "no change" to the kernel.
const maxID = 1<<32 - 2

// resolveUser turns process.user into ids. Username, when set, is what a person wrote, "user[:group]" of names or
// numbers, and is looked up in the image's own files, never the host's.
func (b *boot) resolveUser() error {
	passwd, err := b.readRootFile("etc/passwd")
	if err != nil {
		return err
	}
	u := &b.process.User
	c := credentials{uid: u.UID, gid: u.GID, groups: u.AdditionalGids}

	var group []byte
	if u.Username != "" || len(b.cfg.Groups) > 0 {
		if group, err = b.readRootFile("etc/group"); err != nil {
			return err
		}
	}
	if u.Username != "" {
		if err := c.lookup(u.Username, passwd, group); err != nil {
			return err
		}
	} else if e, ok := passwdEntry(passwd, "", &c.uid); ok {
		c.home = e[5]
	}

	for _, name := range b.cfg.Groups {
		e, ok := groupEntry(group, name)
		if !ok {
			return errdef.Invalid("Unable to find group %s: no matching entries in group file", name)
		}
		c.add(atoi(e[2]))
	}
	if c.home == "" {
		c.home = "/"
	}
	if _, ok := outside(b.spec.Linux.UIDMappings, c.uid); b.userns != nil && !ok {
		return noSuchID("user", c.uid)
	}
	if _, ok := outside(b.spec.Linux.GIDMappings, c.gid); b.userns != nil && !ok {
		return noSuchID("group", c.gid)
	}
	b.user = c
	return nil
}

// noSuchID is the error for an id that the container has not got.
func noSuchID(kind string, id uint32) error {
	cure := "" // root's containers have 65,536 ids
	if os.Geteuid() != 0 {
		cure = ": this user has too few ids in /etc/sub" + kind[:1] + "id (see hull doctor)"
	}
	return errdef.Invalid("%s id %d has no mapping in the user namespace of the container%s", kind, id, cure)
}

// lookup follows Docker: a group given replaces the user's own and its memberships; a number need not be in the files;
// all digits is never a name (CVE-2016-3697, CVE-2024-40635).
func (c *credentials) lookup(spec string, passwd, group []byte) error {
	user, grp, hasGroup := strings.Cut(spec, ":")
	if user == "" {
		user = "0"
	}
	name := user
	uid, numeric, err := parseID(user)
	if err != nil {
		return err
	}
	var want *uint32
	if numeric {
		want, c.uid, c.gid, name = &uid, uid, 0, ""
	}
	if e, ok := passwdEntry(passwd, name, want); ok {
		c.uid, c.home, name = atoi(e[2]), e[5], e[0]
		c.gid = atoi(e[3])
	} else if !numeric {
		return errdef.Invalid("unable to find user %s: no matching entries in passwd file", user)
	}
	extra := c.groups
	c.groups = nil
	if hasGroup && grp != "" {
		gid, numeric, err := parseID(grp)
		if err != nil {
			return err
		}
		if !numeric {
			e, ok := groupEntry(group, grp)
			if !ok {
				return errdef.Invalid("unable to find group %s: no matching entries in group file", grp)
			}
			gid = atoi(e[2])
		}
		c.gid = gid
	} else if name != "" {
		for line := range bytes.Lines(group) {
			if e := strings.Split(strings.TrimRight(string(line), "\n"), ":"); len(e) == 4 && contains(e[3], name) {
				if gid, numeric, err := parseID(e[2]); numeric && err == nil {
					c.add(gid)
				}
			}
		}
	}
	c.add(c.gid) // CVE-2022-36109: the own group has to be among them
	for _, g := range extra {
		c.add(g)
	}
	return nil
}

func (c *credentials) add(gid uint32) {
	for _, g := range c.groups {
		if g == gid {
			return
		}
	}
	c.groups = append(c.groups, gid)
}

func contains(list, name string) bool {
	for n := range strings.SplitSeq(list, ",") {
		if n == name {
			return true
		}
	}
	return false
}

// parseID reads a number; numeric is false for what has to be a name.
func parseID(s string) (id uint32, numeric bool, err error) {
	digits := strings.TrimLeft(s, "+-")
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false, nil
	}
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n > maxID {
		return 0, true, errdef.Invalid("id %q is out of range: 0 to %d", s, uint32(maxID))
	}
	return uint32(n), true, nil
}

func atoi(s string) uint32 {
	n, _ := strconv.ParseUint(s, 10, 32)
	return uint32(n)
}

// passwdEntry finds the user by name, or by id when want is set. Entries with broken numbers do not exist.
func passwdEntry(passwd []byte, name string, want *uint32) ([]string, bool) {
	for line := range bytes.Lines(passwd) {
		e := strings.Split(strings.TrimRight(string(line), "\n"), ":")
		if len(e) < 7 {
			continue
		}
		uid, ok, err := parseID(e[2])
		if !ok || err != nil {
			continue
		}
		if _, ok, err := parseID(e[3]); !ok || err != nil {
			continue
		}
		if want != nil && uid == *want || want == nil && e[0] == name {
			return e, true
		}
	}
	return nil, false
}

func groupEntry(group []byte, name string) ([]string, bool) {
	for line := range bytes.Lines(group) {
		e := strings.Split(strings.TrimRight(string(line), "\n"), ":")
		if len(e) < 3 || e[0] != name {
			continue
		}
		if _, ok, err := parseID(e[2]); ok && err == nil {
			return e, true
		}
	}
	return nil, false
}
