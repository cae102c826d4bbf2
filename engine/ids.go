package engine

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/monitor"
	"hull/state"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The id ranges of user namespaces. Range n is the host ids from n<<16, 65,536 of them. They are far above what
// useradd and /etc/subuid give out by default (600,100,000) and what systemd uses (below 0x7fff0000), and belong
// to the whole machine: all engines of it claim them in one directory.
const (
	rangeDir   = monitor.IDClaims
	rangeBits  = 16
	rangeFirst = 0x8000
	rangeLast  = 0xFFFE // the last range ends below 2^32-1, which is no id
)

// idMap is how the ids of a container's user namespace lie on the host.
type idMap struct {
	uids, gids  []specs.LinuxIDMapping
	claim       string // path of the claim; "" without one
	idmapMounts bool   // mounts can be mapped too: root only
}

// maps reports whether gid exists in the container. Without a user namespace (nil) all do.
func (m *idMap) maps(gid uint32) bool {
	if m == nil {
		return true
	}
	for _, r := range m.gids {
		if gid >= r.ContainerID && gid-r.ContainerID < r.Size {
			return true
		}
	}
	return false
}

// root is the host id of the container's root, or -1, which chown(2) takes for no change: without a range of our own to
// give, it is whoever starts the container.
func (m *idMap) root() int {
	switch {
	case os.Geteuid() != 0:
		return -1
	case m == nil:
		return 0
	}
	return int(m.uids[0].HostID)
}

// claimIDs gives the container id, whose run directory exists, a range of its own. The claim is stale when that
// directory is gone.
func (e *Engine) claimIDs(id string) (*idMap, error) {
	if os.Geteuid() != 0 {
		return ownIDs()
	}
	taken, err := subordinate()
	if err != nil {
		return nil, err
	}
	seed, err := strconv.ParseUint(id[:8], 16, 32)
	if err != nil {
		return nil, err
	}
	const count = rangeLast - rangeFirst + 1
	for i := range uint64(count) {
		n := rangeFirst + uint32((seed+i)%count)
		if overlaps(taken, n) {
			continue
		}
		name := strconv.FormatUint(uint64(n), 10)
		err := state.Claim(rangeDir, name, e.runDir(id))
		if isMissing(err) {
			if err = os.MkdirAll(rangeDir, 0o755); err == nil {
				err = state.Claim(rangeDir, name, e.runDir(id))
			}
		}
		var other *state.Taken
		if errors.As(err, &other) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if hasMembers(n) { // see share.go
			if err := state.Release(rangeDir, name, e.runDir(id)); err != nil {
				return nil, err
			}
			continue
		}
		m := []specs.LinuxIDMapping{{HostID: n << rangeBits, Size: 1 << rangeBits}}
		return &idMap{uids: m, gids: m, claim: filepath.Join(rangeDir, name), idmapMounts: true}, nil
	}
	return nil, errdef.Unavailable("all %d id ranges for user namespaces are in use", count)
}

// releaseIDs gives the range back that a configuration of a start says the container had.
func (e *Engine) releaseIDs(id string, maps []specs.LinuxIDMapping) error {
	if os.Geteuid() != 0 || len(maps) == 0 {
		return nil
	}
	n := maps[0].HostID >> rangeBits
	if n < rangeFirst {
		return nil
	}
	err := state.Release(rangeDir, strconv.FormatUint(uint64(n), 10), e.runDir(id))
	dir := members(n)
	err = errors.Join(err, state.Release(dir, id, e.runDir(id)))
	_ = unix.Rmdir(dir) // the last one out
	return err
}

// sweepIDs gives back the ranges of containers whose run directory is gone: a process of ours was killed, or could not
// remove its claim. The next draw of the number would take it over too; without this it might be long until then.
func sweepIDs() {
	if os.Geteuid() == 0 {
		_ = state.SweepClaims(rangeDir) // or the next list does
		groups, _ := filepath.Glob(filepath.Join(rangeDir, "*"+monitor.MembersSuffix))
		for _, dir := range groups {
			_ = state.SweepClaims(dir)
			_ = unix.Rmdir(dir)
		}
	}
}

// idRange is one of subuid(5).
type idRange struct {
	who         string
	first, size uint64
}

// subordinate reads what the administrator gives out, for both users and groups.
func subordinate() ([]idRange, error) {
	var all []idRange
	for _, f := range []string{"/etc/subuid", "/etc/subgid"} {
		rs, err := readSubIDs(f)
		if err != nil {
			return nil, err
		}
		all = append(all, rs...)
	}
	return all, nil
}

// readSubIDs reads a file of lines NAME:FIRST:COUNT. A missing file is empty; lines nobody can read are left out,
// as newuidmap does.
func readSubIDs(path string) ([]idRange, error) {
	f, err := os.Open(path)
	if isMissing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []idRange
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Split(s.Text(), ":")
		if len(fields) != 3 {
			continue
		}
		first, err1 := strconv.ParseUint(fields[1], 10, 32)
		size, err2 := strconv.ParseUint(fields[2], 10, 32)
		if err1 == nil && err2 == nil && size > 0 {
			out = append(out, idRange{fields[0], first, size})
		}
	}
	return out, nil
}

// overlaps reports whether range n has an id that is given out.
func overlaps(taken []idRange, n uint32) bool {
	first := uint64(n) << rangeBits
	for _, r := range taken {
		if first < r.first+r.size && r.first < first+1<<rangeBits {
			return true
		}
	}
	return false
}

// ownIDs is the map of an ordinary user: their own id is root inside, and above it comes what /etc/subuid and
// /etc/subgid give them, where newuidmap is there to write it.
func ownIDs() (*idMap, error) {
	m := &idMap{
		uids: []specs.LinuxIDMapping{{HostID: uint32(os.Geteuid()), Size: 1}},
		gids: []specs.LinuxIDMapping{{HostID: uint32(os.Getegid()), Size: 1}},
	}
	if _, err := exec.LookPath("newuidmap"); err != nil {
		return m, nil
	}
	name := ""
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	uids, err := subIDsOf(name, "/etc/subuid")
	if err != nil {
		return nil, err
	}
	gids, err := subIDsOf(name, "/etc/subgid")
	if err != nil {
		return nil, err
	}
	if len(uids) > 0 && len(gids) > 0 {
		m.uids, m.gids = append(m.uids, uids...), append(m.gids, gids...)
	}
	return m, nil
}

func subIDsOf(name, path string) ([]specs.LinuxIDMapping, error) {
	rs, err := readSubIDs(path)
	if err != nil {
		return nil, err
	}
	var out []specs.LinuxIDMapping
	next := uint32(1)
	for _, r := range rs {
		if r.who == name && name != "" || r.who == strconv.Itoa(os.Geteuid()) {
			out = append(out, specs.LinuxIDMapping{ContainerID: next, HostID: uint32(r.first), Size: uint32(r.size)})
			next += uint32(r.size)
		}
	}
	return out, nil
}

// layerDir is where a layer lies unpacked.
func (e *Engine) layerDir(chain string) string {
	return filepath.Join(e.root, "layers", strings.TrimPrefix(chain, "sha256:"), "fs")
}
