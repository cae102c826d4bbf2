package engine

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"hull/errdef"
	"hull/monitor"
	"hull/state"
	"hull/state/plainjson"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// A container may enter namespaces of another one: --network, --pid and --ipc container:ID. Such a group shares one user
// namespace, because only its owner has rights in the others, and so one range of ids:
//
//	/run/hull-ids/32770           the range of the container that was there first
//	/run/hull-ids/32770.d/<id>    one for each that entered later
//
// Whoever leaves takes back its own link only, and nobody draws a range whose directory has a link to a living
// container. A member first writes its link and then looks whether the one it joins is still there; whoever draws a range
// first takes it and then looks for members: one of the two sees the other.
//
// To give a further mode the word container:ID, add it to sharedModes; the rest follows, from Create (which resolves the
// name) to the monitor (which opens the namespaces). A --userns=host or --privileged container enters namespaces from
// outside, with a range of nobody.
func sharedModes(h *Host) []sharedMode {
	return []sharedMode{
		{"--network", specs.NetworkNamespace, &h.Network},
		{"--pid", specs.PIDNamespace, &h.PidMode},
		{"--ipc", specs.IPCNamespace, &h.IPCMode},
	}
}

type sharedMode struct {
	flag string
	kind specs.LinuxNamespaceType
	mode *string
}

const containerPrefix = "container:"

// other is the container a mode names.
func other(mode string) (name string, ok bool) { return strings.CutPrefix(mode, containerPrefix) }

// resolveShared replaces names in modes by ids: the container may be renamed, or another get its name. The containers need
// not run yet.
func (e *Engine) resolveShared(h *Host) error {
	for _, m := range sharedModes(h) {
		name, ok := other(*m.mode)
		if !ok {
			continue
		}
		if name == "" {
			return errdef.Invalid("invalid mode for %s: container: needs the name or id of a container", m.flag)
		}
		if os.Geteuid() != 0 { // setns(2) asks for CAP_SYS_ADMIN over the user namespace that owns the other
			return errdef.Forbidden("an ordinary user has no right to join the namespaces of another container (%s %s), which has a user namespace of its own: run hull as root", m.flag, clip(*m.mode))
		}
		id, err := e.find(name)
		if err != nil {
			return err
		}
		*m.mode = containerPrefix + id
	}
	return nil
}

// shared is what a container has of others.
type shared struct {
	joins []monitor.Join
	ids   *idMap // of the group; nil without a user namespace
}

// joins reports whether the namespace of that kind is another container's. It is for nil too.
func (s *shared) has(kind specs.LinuxNamespaceType) bool {
	if s == nil {
		return false
	}
	for _, j := range s.joins {
		for _, k := range j.Namespaces {
			if k == kind {
				return true
			}
		}
	}
	return false
}

// share enters c, whose run directory exists, into the groups of the containers whose namespaces it is to have; nil when
// there are none. Give ids back by releaseIDs.
func (e *Engine) share(ctx context.Context, c *Container) (_ *shared, err error) {
	var s *shared
	defer func() {
		if err != nil && s != nil && s.ids != nil {
			_ = e.releaseIDs(c.ID, s.ids.uids)
		}
	}()
	for _, m := range sharedModes(&c.Host) {
		id, ok := other(*m.mode)
		if !ok {
			continue
		}
		if s == nil {
			s = new(shared)
		}
		if err := e.joinOne(ctx, c, m, id, s); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// joinOne adds the namespace m of the container id to s.
func (e *Engine) joinOne(ctx context.Context, c *Container, m sharedMode, id string, s *shared) error {
	if id == c.ID {
		return errdef.Invalid("cannot join own %s namespace", m.kind)
	}
	if _, err := e.settle(ctx, id); err != nil {
		return err
	}
	st, err := monitor.ReadState(e.dir(id))
	if isMissing(err) || err == nil && !e.exists(id) {
		return noSuchContainer(id)
	}
	if err != nil {
		return err
	}
	if _, alive := monitor.Alive(e.runDir(id)); !alive || st.Status != monitor.StatusRunning {
		return notJoinable(m, id)
	}
	if m.kind == specs.IPCNamespace {
		if err := e.lendsIPC(id); err != nil {
			return err
		}
	}
	// From here on the other one's monitor knows, when it ends, that its namespaces may live on.
	mark, err := os.OpenFile(filepath.Join(e.runDir(id), monitor.JoinedFile), os.O_CREATE|os.O_WRONLY, 0o600)
	if errors.Is(err, fs.ErrNotExist) {
		return notJoinable(m, id)
	}
	if err != nil {
		return err
	}
	mark.Close()
	spec, err := e.readSpec(id)
	if err != nil {
		return notJoinable(m, id)
	}
	join := func(kind specs.LinuxNamespaceType) {
		for i := range s.joins {
			if s.joins[i].ID == id {
				s.joins[i].Namespaces = append(s.joins[i].Namespaces, kind)
				return
			}
		}
		s.joins = append(s.joins, monitor.Join{ID: id, Pid: st.Pid, PidStart: st.PidStart, Namespaces: []specs.LinuxNamespaceType{kind}})
	}
	join(m.kind)
	if len(spec.Linux.UIDMappings) == 0 || !userNamespace(&c.Host) {
		return nil
	}
	if s.ids != nil {
		if s.ids.uids[0] != spec.Linux.UIDMappings[0] {
			return errdef.Conflict("%s: container %s has another user namespace than those the other options name: start this one with --userns=host, or those in one group", m.flag, id[:12])
		}
		return nil
	}
	join(specs.UserNamespace)
	if s.ids, err = e.joinIDs(c.ID, id, spec.Linux); err != nil {
		return err
	}
	return nil
}

// lendsIPC refuses the IPC namespace of a container that was not made to be shared, as Docker does.
func (e *Engine) lendsIPC(id string) error {
	r, err := e.readRecord(e.dir(id))
	if err != nil {
		return err
	}
	if mode := r.Host.IPCMode; mode != modeShareable && mode != modeHost {
		return errdef.Conflict("cannot join IPC namespace of container %s: non-shareable IPC (hint: use IpcMode:shareable for the donor container)", id)
	}
	return nil
}

func notJoinable(m sharedMode, id string) error {
	return errdef.Conflict("cannot join %s of a non running container: %s", m.kind, id)
}

// readSpec reads the configuration of a running container.
func (e *Engine) readSpec(id string) (*specs.Spec, error) {
	b, err := state.Read(filepath.Join(e.runDir(id), monitor.SpecFile), maxRecord)
	if err != nil {
		return nil, err
	}
	spec := new(specs.Spec)
	if err := plainjson.Unmarshal(b, spec); err != nil {
		return nil, err
	}
	if spec.Linux == nil {
		return nil, errdef.Invalid("no linux section")
	}
	return spec, nil
}

// joinIDs makes the container id a member of the group of leader, whose range is in l.
func (e *Engine) joinIDs(id, leader string, l *specs.Linux) (*idMap, error) {
	m := &idMap{uids: l.UIDMappings, gids: l.GIDMappings, idmapMounts: true}
	n := l.UIDMappings[0].HostID >> rangeBits
	if os.Geteuid() != 0 || n < rangeFirst {
		m.idmapMounts = os.Geteuid() == 0
		return m, nil // no range of ours
	}
	dir := members(n)
	err := state.Claim(dir, id, e.runDir(id))
	for isMissing(err) { // also when the last member leaves meanwhile, and tidies up
		if err = os.MkdirAll(dir, 0o755); err == nil {
			err = state.Claim(dir, id, e.runDir(id))
		}
	}
	if err != nil {
		return nil, err
	}
	m.claim = filepath.Join(dir, id)
	for _, c := range [][2]string{{rangeDir, strconv.FormatUint(uint64(n), 10)}, {dir, leader}} {
		if holder, alive, err := state.Holder(c[0], c[1]); err == nil && alive && holder == e.runDir(leader) {
			return m, nil
		}
	}
	_ = e.releaseIDs(id, m.uids)
	return nil, errdef.Conflict("container %s has just ended", leader[:12])
}

// members is the directory of those that entered range n later.
func members(n uint32) string {
	return filepath.Join(rangeDir, strconv.FormatUint(uint64(n), 10)+monitor.MembersSuffix)
}

// hasMembers reports whether somebody still lives with range n, and tidies up behind those who do not.
func hasMembers(n uint32) bool {
	dir := members(n)
	if _, err := os.Lstat(dir); isMissing(err) {
		return false
	}
	names, err := readNames(dir)
	if err != nil {
		return true // better none than one twice
	}
	for _, name := range names {
		if _, alive, err := state.Holder(dir, name); err == nil && alive {
			return true
		}
	}
	if len(names) > 0 {
		_ = state.SweepClaims(dir)
	}
	_ = unix.Rmdir(dir)
	return false
}
