package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/buildkit/solver"
	"github.com/moby/buildkit/solver/pb"
	"github.com/moby/buildkit/util/progress/logs"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"

	"hull/archive"
	"hull/builds"
	"hull/engine"
	"hull/errdef"
)

// execOp runs a command: RUN.
type execOp struct {
	operation
	op   *pb.ExecOp
	root *pb.Mount
}

func newExec(base operation, op *pb.ExecOp) (solver.Op, error) {
	e := &execOp{operation: base, op: op}
	if op.Meta == nil || len(op.Meta.Args) == 0 {
		return nil, errdef.Invalid("%s: no command specified", base.v.Name())
	}
	if _, ok := pb.NetMode_name[int32(op.Network)]; !ok {
		return nil, errdef.Invalid("%s: unknown network mode %d", base.v.Name(), op.Network)
	}
	if _, ok := pb.SecurityMode_name[int32(op.Security)]; !ok { // CVE-2023-23653: an unknown mode was not the strict one
		return nil, errdef.Invalid("%s: unknown security mode %d", base.v.Name(), op.Security)
	}
	for _, m := range op.Mounts {
		if m.Input != int64(pb.Empty) && (m.Input < 0 || m.Input >= int64(len(base.v.Inputs()))) {
			return nil, errdef.Invalid("%s: the mount at %s has the input %d", base.v.Name(), m.Dest, m.Input)
		}
		if path.Clean("/"+m.Dest) == "/" {
			if m.MountType != pb.MountType_BIND {
				return nil, errdef.Invalid("%s: the root file system is of the type %s", base.v.Name(), m.MountType)
			}
			e.root = m
			continue
		}
		if m.MountType == pb.MountType_BIND && m.Output != int64(pb.SkipOutput) { // of other kinds nothing can be
			return nil, errdef.NotImplemented("%s: what is written to the mount at %s cannot be kept", base.v.Name(), m.Dest)
		}
	}
	if e.root == nil {
		return nil, errdef.Invalid("%s: no root file system", base.v.Name())
	}
	if e.root.Output > 0 {
		return nil, errdef.Invalid("%s: the root file system is output %d", base.v.Name(), e.root.Output)
	}
	return e, nil
}

// CacheMap: the command with all that steers it, but not what secrets and proxies are, and of mounts that are only read what
// is in them.
func (e *execOp) CacheMap(context.Context, solver.JobContext, int) (*solver.CacheMap, bool, error) {
	op := e.op.CloneVT()
	op.Meta.ProxyEnv = nil
	for _, h := range op.Meta.ExtraHosts {
		h.IP = ""
	}
	for _, m := range op.Mounts {
		m.Selector = ""
	}
	data, err := json.Marshal(struct {
		Type     string
		Exec     *pb.ExecOp
		Platform *pb.Platform
	}{"hull.exec.v1", op, e.operation.op.Platform})
	if err != nil {
		return nil, false, err
	}
	m := newCacheMap(digest.FromBytes(data), len(e.v.Inputs()))
	chosen, whole := map[int][]selector{}, map[int]bool{}
	for _, mount := range e.op.Mounts {
		in := int(mount.Input)
		if in < 0 {
			continue
		}
		if mount.MountType == pb.MountType_BIND && mount != e.root {
			chosen[in] = append(chosen[in], selector{path: path.Join("/", mount.Selector), follow: true})
		} else {
			whole[in] = true
		}
	}
	for in, list := range chosen {
		if whole[in] {
			continue
		}
		text, err := json.Marshal(selectorNames(list))
		if err != nil {
			return nil, false, err
		}
		m.Deps[in].Selector = digest.FromBytes(text)
		m.Deps[in].ComputeDigestFunc = e.content(list)
	}
	return m, true, nil
}

func (e *execOp) Acquire(ctx context.Context) (solver.ReleaseFunc, error) { return e.b.acquire(ctx) }

// Exec runs the command in a container and keeps what it wrote.
func (e *execOp) Exec(ctx context.Context, jc solver.JobContext, inputs []solver.Result) (_ []solver.Result, err error) {
	j, err := e.job(jc)
	if err != nil {
		return nil, err
	}
	if err := e.permitted(j); err != nil {
		return nil, err
	}
	base, err := e.base(ctx, j, inputs)
	if err != nil {
		return nil, err
	}
	s := &engine.Step{Build: j.build, Layers: chains(base.Layers), Over: j.b.over(base)}
	if err := e.configure(ctx, j, s); err != nil {
		return nil, err
	}
	m := &mounts{j: j, e: e, s: s, inputs: inputs}
	defer func() { err = errors.Join(err, m.close()) }()
	if err := m.all(ctx); err != nil {
		return nil, err
	}
	stubs, err := m.stubs(ctx, base)
	if err != nil {
		return nil, err
	}
	stdout, stderr, flush := logs.NewLogStreams(ctx, false)
	defer stdout.Close()
	defer stderr.Close()
	defer func() {
		if err != nil {
			flush()
		}
	}()
	s.Output = func(fd int, p []byte) error {
		w := stdout
		if fd == 2 {
			w = stderr
		}
		_, err := w.Write(p)
		return err
	}
	ran, err := j.b.e.RunStep(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, ran.Close()) }()
	if err := e.judge(ran); err != nil {
		return nil, err
	}
	if e.root.Output == int64(pb.SkipOutput) {
		return []solver.Result{}, nil
	}
	if err := stubs.remove(ran.Upper()); err != nil {
		return nil, err
	}
	d, err := j.build.NewSnapshot(newID())
	if err != nil {
		return nil, err
	}
	if err := os.Rename(ran.Upper(), d.FS()); err != nil {
		return nil, errors.Join(err, d.Discard())
	}
	id, err := d.Commit(e.v.Name())
	if err != nil {
		return nil, errors.Join(err, d.Discard())
	}
	return []solver.Result{newResult(&tree{fs: base.Over(id), what: e.v.Name()})}, nil
}

// base is the root file system.
func (e *execOp) base(ctx context.Context, j *job, inputs []solver.Result) (*builds.FS, error) {
	if e.root.Input < 0 {
		return &builds.FS{}, nil
	}
	t, err := treeOf(inputs[e.root.Input])
	if err != nil {
		return nil, err
	}
	if t.fs == nil {
		return j.copied(ctx, t)
	}
	return t.fs, nil
}

// permitted holds the step to what the person allowed.
func (e *execOp) permitted(j *job) error {
	need := func(name string, wanted bool) error {
		if wanted && !slices.Contains(j.req.Allow, name) {
			return errdef.Forbidden("%s is not allowed: build with --allow %s", name, name)
		}
		return nil
	}
	return errors.Join(
		need("network.host", e.op.Network == pb.NetMode_HOST),
		need("security.insecure", e.op.Security == pb.SecurityMode_INSECURE),
	)
}

// configure says what runs and how it is confined.
func (e *execOp) configure(ctx context.Context, j *job, s *engine.Step) error {
	meta := e.op.Meta
	c, h := &s.Config, &s.Host
	c.Entrypoint, c.Env, c.User, c.WorkingDir, c.Hostname = meta.Args, slices.Clone(meta.Env), meta.User, meta.Cwd, meta.Hostname
	if p := meta.ProxyEnv; p != nil {
		for _, v := range []struct{ name, value string }{
			{"HTTP_PROXY", p.HttpProxy}, {"HTTPS_PROXY", p.HttpsProxy}, {"FTP_PROXY", p.FtpProxy}, {"NO_PROXY", p.NoProxy}, {"ALL_PROXY", p.AllProxy},
		} {
			if v.value != "" {
				c.Env = append(c.Env, v.name+"="+v.value, strings.ToLower(v.name)+"="+v.value)
			}
		}
	}
	for _, v := range e.op.Secretenv {
		value, err := j.secret(ctx, v.ID, v.Optional)
		if err != nil {
			return err
		}
		if value != nil {
			c.Env = append(c.Env, v.Name+"="+string(value))
		}
	}
	switch e.op.Network {
	case pb.NetMode_HOST:
		h.Network = "host"
	case pb.NetMode_NONE:
		h.Network = "none"
	}
	h.Privileged = e.op.Security == pb.SecurityMode_INSECURE
	for _, x := range meta.ExtraHosts {
		h.ExtraHosts = append(h.ExtraHosts, x.Host+":"+x.IP)
	}
	for _, u := range meta.Ulimit {
		h.Ulimits = append(h.Ulimits, engine.Ulimit{Name: u.Name, Soft: u.Soft, Hard: u.Hard})
	}
	h.CgroupParent = meta.CgroupParent
	h.ReadOnly = e.root.Readonly
	return nil
}

// secret returns the secret id; nil if there is none and need not be.
func (j *job) secret(ctx context.Context, id string, optional bool) ([]byte, error) {
	missing := errdef.NotFound("secret %s: not found", id)
	if j.req.Secret == nil {
		if optional {
			return nil, nil
		}
		return nil, missing
	}
	value, err := j.req.Secret(ctx, id)
	if errors.Is(err, errdef.ErrNotFound) {
		if optional {
			return nil, nil
		}
		return nil, missing
	}
	return value, err
}

// ExitError is the end of a command that failed.
type ExitError struct {
	Command string
	Code    int
	OOM     bool // it, or a child of it, was killed for want of memory
}

// Error is in BuildKit's words, which scripts look for.
func (e *ExitError) Error() string {
	why := ""
	if e.OOM {
		why = " (a process of it was killed for want of memory)"
	}
	return fmt.Sprintf("process %q did not complete successfully: exit code: %d%s", e.Command, e.Code, why)
}

func (e *execOp) judge(ran *engine.Ran) error {
	for _, code := range e.op.Meta.ValidExitCodes {
		if ran.Code == int(code) {
			return nil
		}
	}
	if ran.Code == 0 && len(e.op.Meta.ValidExitCodes) == 0 {
		return nil
	}
	return &ExitError{Command: strings.Join(e.op.Meta.Args, " "), Code: ran.Code, OOM: ran.OOMKilled}
}

// mounts are what a step sees beside its root.
type mounts struct {
	j      *job
	e      *execOp
	s      *engine.Step
	inputs []solver.Result
	undo   []func() error
}

func (m *mounts) close() error {
	var errs []error
	for _, f := range slices.Backward(m.undo) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

func (m *mounts) all(ctx context.Context) error {
	for _, mount := range m.e.op.Mounts {
		if mount == m.e.root {
			continue
		}
		if err := m.one(ctx, mount); err != nil {
			return fmt.Errorf("mount at %s: %w", mount.Dest, err)
		}
	}
	return nil
}

func (m *mounts) one(ctx context.Context, x *pb.Mount) error {
	target := path.Join("/", x.Dest)
	if !path.IsAbs(x.Dest) {
		target = path.Join("/", m.e.op.Meta.Cwd, x.Dest)
	}
	add := func(p engine.Mount) { m.s.Mounts = append(m.s.Mounts, engine.MountPoint{Mount: p}) }
	switch x.MountType {
	case pb.MountType_BIND:
		return m.bind(ctx, x, target)
	case pb.MountType_TMPFS:
		p := engine.Mount{Type: "tmpfs", Target: target, Mode: 0o1777}
		if x.TmpfsOpt != nil {
			p.Size = x.TmpfsOpt.Size
		}
		add(p)
		return nil
	case pb.MountType_CACHE:
		dir, err := m.cache(ctx, x)
		if err == nil {
			add(engine.Mount{Type: "bind", Source: dir, Target: target, ReadOnly: x.Readonly})
		}
		return err
	case pb.MountType_SECRET:
		if x.SecretOpt == nil {
			return errdef.Invalid("no secret is named")
		}
		value, err := m.j.secret(ctx, x.SecretOpt.ID, x.SecretOpt.Optional)
		if err != nil || value == nil {
			return err
		}
		file, err := m.inMemory(value, x.SecretOpt)
		if err == nil {
			add(engine.Mount{Type: "bind", Source: file, Target: target, ReadOnly: true, NoRecurse: true})
		}
		return err
	case pb.MountType_SSH:
		return m.agent(x, target, add)
	}
	return errdef.NotImplemented("mounts of the type %s", x.MountType)
}

// bind shows a part of another file system.
func (m *mounts) bind(ctx context.Context, x *pb.Mount, target string) error {
	base := &builds.FS{}
	if x.Input >= 0 {
		t, err := treeOf(m.inputs[x.Input])
		if err != nil {
			return err
		}
		if base = t.fs; base == nil {
			if base, err = m.j.copied(ctx, t); err != nil {
				return err
			}
		}
	}
	sub := ""
	err := m.j.with(&tree{fs: base}, func(v *view) error {
		rel, err := v.resolve(x.Selector, true)
		if err != nil {
			return err
		}
		if rel != "." {
			sub = rel
		}
		fd, err := v.open(rel, unix.O_PATH)
		if err != nil {
			return errdef.NotFound("%q: not found", x.Selector)
		}
		return unix.Close(fd)
	})
	if err != nil {
		return err
	}
	p := engine.MountPoint{Mount: engine.Mount{Type: "image", Target: target, ReadOnly: true, Subpath: sub}, Layers: chains(base.Layers), Over: m.j.b.over(base)}
	if x.Readonly {
		m.s.Mounts = append(m.s.Mounts, p)
		return nil
	}
	// What is written is thrown away: a copy.
	dir := filepath.Join(m.j.build.Dir(), newID())
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	m.undo = append(m.undo, func() error { return removeAll(dir) })
	err = m.j.with(&tree{fs: base}, func(v *view) error { return v.copyTo(ctx, sub, dir) })
	if err != nil {
		return err
	}
	m.s.Mounts = append(m.s.Mounts, engine.MountPoint{Mount: engine.Mount{Type: "bind", Source: filepath.Join(dir, "fs"), Target: target}})
	return nil
}

// cache is the directory of a cache mount, ours until the step has ended as its sharing says.
func (m *mounts) cache(ctx context.Context, x *pb.Mount) (string, error) {
	if x.CacheOpt == nil {
		return "", errdef.Invalid("no cache is named")
	}
	sharing := builds.Shared
	switch x.CacheOpt.Sharing {
	case pb.CacheSharingOpt_PRIVATE:
		sharing = builds.Private
	case pb.CacheSharingOpt_LOCKED:
		sharing = builds.Locked
	}
	c, err := m.j.b.store.Mount(ctx, x.CacheOpt.ID, sharing, func(dir string) error {
		if x.Input < 0 {
			return os.Mkdir(filepath.Join(dir, "fs"), 0o755)
		}
		t, err := treeOf(m.inputs[x.Input])
		if err != nil {
			return err
		}
		return m.j.with(t, func(v *view) error {
			rel, err := v.resolve(x.Selector, true)
			if err != nil {
				return err
			}
			return v.copyTo(ctx, rel, dir)
		})
	})
	if err != nil {
		return "", err
	}
	m.undo = append(m.undo, c.Close)
	return c.Path(), nil
}

// inMemory writes a secret to a file of a file system in memory, as nothing may ever write it to a disk.
func (m *mounts) inMemory(value []byte, o *pb.SecretOpt) (string, error) {
	for _, top := range []string{m.j.b.e.Run(), "/run", "/dev/shm"} {
		var st unix.Statfs_t
		if unix.Statfs(top, &st) != nil || st.Type != unix.TMPFS_MAGIC {
			continue
		}
		f, err := os.CreateTemp(top, ".hull-secret-")
		if err != nil {
			continue
		}
		m.undo = append(m.undo, func() error {
			if err := os.Remove(f.Name()); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		})
		_, err = f.Write(value)
		err = errors.Join(err, f.Chown(int(o.Uid), int(o.Gid)), f.Chmod(fs.FileMode(o.Mode)&0o777), f.Close())
		return f.Name(), err
	}
	return "", errdef.Unavailable("there is no file system in memory for a secret: mount a tmpfs at /run or /dev/shm")
}

func (m *mounts) agent(x *pb.Mount, target string, add func(engine.Mount)) error {
	if x.SSHOpt == nil {
		return errdef.Invalid("no agent is named")
	}
	id := x.SSHOpt.ID
	if id == "" {
		id = "default"
	}
	socket := m.j.req.Agents[id]
	if socket == "" {
		if x.SSHOpt.Optional {
			return nil
		}
		return errdef.NotFound("no ssh agent %s was given: build with --ssh %s", id, id)
	}
	add(engine.Mount{Type: "bind", Source: socket, Target: target})
	return nil
}

// stubs are the places of mounts that the root file system does not have: made for them, they are to go again.
type stubs []string

func (m *mounts) stubs(ctx context.Context, base *builds.FS) (out stubs, err error) {
	if len(m.s.Mounts) == 0 {
		return nil, nil
	}
	err = m.j.with(&tree{fs: base}, func(v *view) error {
		for _, p := range m.s.Mounts {
			rel, err := v.resolve(p.Target, true)
			if err != nil {
				return err
			}
			for rel != "." && rel != "" {
				fd, err := v.open(rel, unix.O_PATH)
				if err == nil {
					unix.Close(fd)
					break
				}
				out = append(out, rel)
				rel = path.Dir(rel)
			}
		}
		return nil
	})
	slices.Sort(out)
	out = slices.Compact(out)
	slices.Reverse(out) // what is in a directory before it
	return out, err
}

// remove takes those away that are still empty. The step is over, so nobody exchanges anything meanwhile; and no link is
// followed, whatever it left there (CVE-2024-23652).
func (s stubs) remove(upper string) error {
	if len(s) == 0 {
		return nil
	}
	top, err := unix.Open(upper, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: upper, Err: err}
	}
	defer unix.Close(top)
	for _, rel := range s {
		dir, err := archive.Open(top, path.Dir(rel), unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_BENEATH|unix.RESOLVE_NO_SYMLINKS)
		if err != nil {
			continue // the step has removed or replaced it
		}
		var st unix.Stat_t
		base := path.Base(rel)
		if unix.Fstatat(dir, base, &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			switch {
			case st.Mode&unix.S_IFMT == unix.S_IFDIR:
				_ = unix.Unlinkat(dir, base, unix.AT_REMOVEDIR) // or there is something in it, which stays
			case st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size == 0:
				_ = unix.Unlinkat(dir, base, 0)
			}
		}
		unix.Close(dir)
	}
	return nil
}

// copyTo copies what is at the path rel into dir, as fs.
func (v *view) copyTo(ctx context.Context, rel, dir string) error {
	if rel == "" {
		rel = "."
	}
	src, err := v.open(rel, unix.O_PATH)
	if err != nil {
		return errdef.NotFound("%q: not found", rel)
	}
	defer unix.Close(src)
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	to := filepath.Join(dir, "fs")
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return copyFile("/proc/self/fd/"+strconv.Itoa(src), to, &st)
	}
	if err := os.Mkdir(to, 0o700); err != nil {
		return err
	}
	from, err := v.open(rel, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	dst, err := unix.Open(to, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	return copyTree(ctx, from, dst)
}
