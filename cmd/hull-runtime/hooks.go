package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"hull/errdef"
	"hull/runtime"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxHookOutput is how much of what a hook writes can become part of an error.
const maxHookOutput = 4096

// hookNames are in the order in which they run.
func hookNames() []string {
	return []string{"prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"}
}

func hooksNamed(s *specs.Spec, name string) []specs.Hook {
	if s == nil || s.Hooks == nil {
		return nil
	}
	switch name {
	case "prestart":
		return s.Hooks.Prestart //nolint:staticcheck // deprecated, and what everybody uses
	case "createRuntime":
		return s.Hooks.CreateRuntime
	case "createContainer":
		return s.Hooks.CreateContainer
	case "startContainer":
		return s.Hooks.StartContainer
	case "poststart":
		return s.Hooks.Poststart
	case "poststop":
		return s.Hooks.Poststop
	}
	return nil
}

// hooks runs the hooks of a kind that belong in the runtime's namespaces, one after the other, until one fails.
func (c *command) hooks(k *container, name string, status specs.ContainerState) error {
	for _, h := range hooksNamed(k.spec, name) {
		if err := c.hook(&h, k.state(status)); err != nil {
			return fmt.Errorf("%s hook: %w", name, err)
		}
	}
	return nil
}

// hookContext bounds a hook by its timeout; without one it may take for ever.
func (c *command) hookContext(h *specs.Hook) (context.Context, context.CancelFunc) {
	if h.Timeout == nil {
		return c.ctx, func() {}
	}
	return context.WithTimeout(c.ctx, time.Duration(*h.Timeout)*time.Second)
}

// hook runs one hook with the state on its stdin. Its environment is what the configuration says and nothing else,
// its directory is /: nothing that a container's image or the caller's environment says may reach a program that
// runs with our rights (CVE-2025-23266: LD_PRELOAD of the image in the environment of a hook).
func (c *command) hook(h *specs.Hook, s specs.State) error {
	input, err := json.Marshal(s)
	if err != nil {
		return err
	}
	ctx, cancel := c.hookContext(h)
	defer cancel()
	cmd := exec.CommandContext(ctx, h.Path)
	if len(h.Args) > 0 {
		cmd.Args = h.Args
	}
	cmd.Env = append([]string{}, h.Env...) // not nil, which would mean ours
	cmd.Dir = "/"
	cmd.Stdin = bytes.NewReader(input)
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	// A hook that is killed takes its children with it, and children that keep its output open are not waited for.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return unix.Kill(-cmd.Process.Pid, unix.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	if ctx.Err() != nil {
		return errdef.As(errdef.ErrDeadline, fmt.Errorf("%s: killed after its timeout of %d s", h.Path, *h.Timeout))
	}
	if err != nil && !errors.Is(err, exec.ErrWaitDelay) {
		return fmt.Errorf("%s: %w: %s", h.Path, err, out.text())
	}
	return nil
}

// checkHooks refuses at create what would fail later.
func checkHooks(s *specs.Spec) error {
	for _, name := range hookNames() {
		for _, h := range hooksNamed(s, name) {
			if !filepath.IsAbs(h.Path) {
				return errdef.Invalid("%s hook: path %q is not absolute", name, h.Path)
			}
			if h.Timeout != nil && *h.Timeout <= 0 {
				return errdef.Invalid("%s hook %s: timeout %d is not greater than zero", name, h.Path, *h.Timeout)
			}
		}
	}
	return nil
}

// tail keeps the end of what is written to it.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if over := len(t.b) - maxHookOutput; over > 0 {
		t.b = append(t.b[:0], t.b[over:]...)
	}
	return len(p), nil
}

func (t *tail) text() string { return string(bytes.TrimSpace(t.b)) }

// containerHooks runs the hooks of a kind that belong inside the container.
func (c *command) containerHooks(k *container, name string, status specs.ContainerState) error {
	for _, h := range hooksNamed(k.spec, name) {
		if err := c.containerHook(k, &h, k.state(status)); err != nil {
			return fmt.Errorf("%s hook: %w", name, err)
		}
	}
	return nil
}

// containerHook runs one hook as a process of the container. Before pivot_root (creating) it is a program of the host,
// chosen by whoever wrote the configuration, and may do to the mounts what we may; later it is a file of the
// container, with the rights of the container's own process.
func (c *command) containerHook(k *container, h *specs.Hook, s specs.State) error {
	input, err := json.Marshal(s)
	if err != nil {
		return err
	}
	ctx, cancel := c.hookContext(h)
	defer cancel()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	// The state fits into the pipe's buffer, or the hook reads while it is written.
	go func() {
		w.Write(input)
		w.Close()
	}()
	spec := *k.spec
	p := specs.Process{Cwd: "/", Env: h.Env, Args: append([]string{h.Path}, h.Args[min(1, len(h.Args)):]...)}
	if s.Status == creating {
		all := runtime.Capabilities()
		p.Capabilities = &specs.LinuxCapabilities{Bounding: all, Permitted: all, Effective: all}
		host := *k.spec.Linux
		host.Seccomp = nil
		spec.Linux = &host
	} else if own := k.spec.Process; own != nil {
		p.Capabilities, p.NoNewPrivileges, p.ApparmorProfile, p.SelinuxLabel = own.Capabilities, own.NoNewPrivileges, own.ApparmorProfile, own.SelinuxLabel
	}
	status, err := c.inside(ctx, k, &spec, &p, [3]*os.File{r, os.Stdout, os.Stderr})
	if err != nil {
		return fmt.Errorf("%s: %w", h.Path, err)
	}
	if !status.Exited() || status.ExitStatus() != 0 {
		return fmt.Errorf("%s: exit status %d", h.Path, exitStatus(status))
	}
	return nil
}
