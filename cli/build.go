package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hull/client"
	"hull/errdef"
	"hull/ref"
	"hull/state"

	"github.com/spf13/cobra"
)

const shortBuild = "Build an image from a Dockerfile"

// buildFlags are those of build.
type buildFlags struct {
	file, target, platform, network, progress, iidFile, metadataFile, call, shmSize, cgroupParent string

	tags, args, labels, hosts, ulimits, contexts, secrets, agents, allow, noCacheFilter listFlag

	noCache, pull, quiet, check bool
}

func buildBuild(a *app, cmd *cobra.Command) {
	var o buildFlags
	cmd.Use += " [OPTIONS] PATH|URL|-"
	cmd.Args = a.arguments(1, 1)
	f := cmd.Flags()
	f.StringVarP(&o.file, "file", "f", "", "Name of the Dockerfile (default: PATH/Dockerfile)")
	f.VarP(&o.tags, "tag", "t", "Name of the image, and optionally a tag (name:tag)")
	f.Var(&o.args, "build-arg", "Set a variable of the build, NAME=VALUE; NAME alone takes it from the environment")
	f.Var(&o.labels, "label", "Set a label of the image, KEY=VALUE")
	f.StringVar(&o.target, "target", "", "Build this stage, and what it needs")
	f.StringVar(&o.platform, "platform", "", "Build for this platform, os/arch[/variant]")
	f.BoolVar(&o.noCache, "no-cache", false, "Run every step again")
	f.Var(&o.noCacheFilter, "no-cache-filter", "Run the steps of this stage again")
	f.BoolVar(&o.pull, "pull", false, "Pull the images of FROM although they are here")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print only the id of the image")
	f.StringVar(&o.progress, "progress", "auto", "How to show the progress: auto, plain, tty, rawjson, quiet")
	f.StringVar(&o.network, "network", "", "Network of RUN steps: default, none, host")
	f.Var(&o.hosts, "add-host", "Add a host for RUN steps, HOST:IP")
	f.Var(&o.ulimits, "ulimit", "Limit of RUN steps, NAME=SOFT[:HARD]")
	f.StringVar(&o.shmSize, "shm-size", "", "Size of /dev/shm in RUN steps")
	f.StringVar(&o.cgroupParent, "cgroup-parent", "", "Control group below which RUN steps run")
	f.Var(&o.contexts, "build-context", "Another place to copy from, NAME=PATH or NAME=docker-image://IMAGE")
	f.Var(&o.secrets, "secret", "A secret for RUN --mount=type=secret, id=ID[,src=FILE|env=NAME]")
	f.Var(&o.agents, "ssh", "An ssh agent for RUN --mount=type=ssh, default or ID=SOCKET")
	f.Var(&o.allow, "allow", "Give RUN steps a right: network.host, security.insecure")
	f.StringVar(&o.iidFile, "iidfile", "", "Write the id of the image to a file")
	f.StringVar(&o.metadataFile, "metadata-file", "", "Write what is known of the image to a file, as JSON")
	f.BoolVar(&o.check, "check", false, "Check the Dockerfile without building")
	f.StringVar(&o.call, "call", "build", "What to do: build, check, outline, targets")
	for _, name := range []string{"load", "rm", "force-rm"} {
		f.Bool(name, true, "Has no effect: the image is always in the store, and nothing is left of steps")
		_ = f.MarkHidden(name) // fails only for a flag that is not there
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if a.Heavier != nil {
			return a.Heavier()
		}
		return a.buildImage(cmd.Context(), args[0], &o)
	}
}

func (a *app) buildImage(ctx context.Context, place string, o *buildFlags) error {
	b := &client.Build{Attrs: map[string]string{}, Locals: map[string]string{}, Secrets: map[string][]byte{}, Agents: map[string]string{}, Allow: o.allow, By: "build"}
	undo, err := a.buildContext(b, place, o)
	defer undo()
	if err != nil {
		return err
	}
	if err := o.attrs(b); err != nil {
		return err
	}
	if err := o.givings(b); err != nil {
		return err
	}
	for _, t := range o.tags {
		r, err := ref.Parse(t)
		if err != nil {
			return err
		}
		b.Tags = append(b.Tags, r.Tagged().Familiar())
	}
	mode := o.progress
	if o.quiet {
		mode = "quiet"
	}
	done := func() {}
	if a.BuildProgress != nil {
		if b.Status, done, err = a.BuildProgress(mode, a.Stderr); err != nil {
			return errdef.As(errdef.ErrInvalid, err)
		}
	}
	c, err := a.engine()
	if err != nil {
		done()
		return err
	}
	out, failed, err := c.ImageBuild(ctx, b)
	done()
	if err != nil {
		return a.buildFailed(failed, err)
	}
	if o.call != "build" {
		return a.called(o, out)
	}
	return a.imageBuilt(o, out)
}

// buildFailed shows which lines are at fault.
func (a *app) buildFailed(f *client.BuildFailure, err error) error {
	if f != nil && f.Source != "" {
		a.err.printf("%s", f.Source)
	}
	return fmt.Errorf("failed to build: %w", err)
}

// called prints what a frontend says instead of building.
func (a *app) called(o *buildFlags, out client.Built) error {
	text := out.Metadata["result.txt"]
	if len(text) == 0 {
		text = out.Metadata["result.json"]
	}
	a.out.printf("%s", string(text))
	if code, err := strconv.Atoi(string(out.Metadata["result.statuscode"])); err == nil {
		return exit(code)
	}
	return nil
}

func (a *app) imageBuilt(o *buildFlags, out client.Built) error {
	if o.iidFile != "" {
		if err := os.WriteFile(o.iidFile, []byte(out.Image), 0o644); err != nil {
			return plainPathError(err)
		}
	}
	if o.metadataFile != "" {
		meta := map[string]any{"buildx.build.ref": out.ID, "containerimage.config.digest": out.Image, "containerimage.digest": out.Manifest}
		if len(o.tags) > 0 {
			meta["image.name"] = strings.Join(o.tags, ",")
		}
		data, err := json.MarshalIndent(meta, "", "  ")
		if err != nil {
			return err
		}
		if err := state.Write(o.metadataFile, append(data, '\n')); err != nil {
			return besideError(o.metadataFile, err)
		}
	}
	if o.quiet {
		a.out.printf("%s\n", out.Image)
	}
	return nil
}

// buildContext says where the files of the build are. undo removes what was made for it; it is never nil.
func (a *app) buildContext(b *client.Build, place string, o *buildFlags) (undo func(), err error) {
	tmp := ""
	undo = func() {
		if tmp != "" {
			_ = state.Remove(tmp)
		}
	}
	made := func(data []byte) error { // a directory with this Dockerfile only
		var err error
		if tmp, err = os.MkdirTemp("", "hull-build-"); err != nil {
			return err
		}
		b.Locals["dockerfile"] = tmp
		b.Attrs["filename"] = "Dockerfile"
		return os.WriteFile(filepath.Join(tmp, "Dockerfile"), data, 0o600)
	}
	switch {
	case place == "-" && o.file == "-":
		return undo, errdef.Invalid("invalid argument: can't use stdin for both build context and dockerfile")
	case place == "-":
		data, err := io.ReadAll(io.LimitReader(a.Stdin, maxDockerfile+1))
		if err != nil {
			return undo, err
		}
		if len(data) > maxDockerfile || len(data) > 257 && string(data[257:262]) == "ustar" {
			return undo, errdef.NotImplemented("a context from stdin is not there yet: extract it and name the directory")
		}
		err = made(data)
		b.Locals["context"] = tmp
		return undo, err
	case isRemoteContext(place):
		b.Attrs["context"] = place
		if o.file != "" {
			b.Attrs["filename"] = o.file
		}
		return undo, nil
	}
	dir, err := filepath.Abs(place)
	if err != nil {
		return undo, err
	}
	st, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return undo, errdef.NotFound("unable to prepare context: path %q not found", place)
	case err != nil:
		return undo, plainPathError(err)
	case !st.IsDir():
		return undo, errdef.Invalid("unable to prepare context: path %q is not a directory", place)
	}
	b.Locals["context"] = dir
	switch o.file {
	case "-":
		data, err := io.ReadAll(io.LimitReader(a.Stdin, maxDockerfile))
		if err != nil {
			return undo, err
		}
		return undo, made(data)
	case "":
		b.Locals["dockerfile"] = dir
	default:
		file, err := filepath.Abs(o.file)
		if err != nil {
			return undo, err
		}
		if _, err := os.Stat(file); err != nil {
			return undo, errdef.NotFound("failed to read dockerfile: open %s: no such file or directory", o.file)
		}
		b.Locals["dockerfile"], b.Attrs["filename"] = filepath.Dir(file), filepath.Base(file)
	}
	return undo, nil
}

// maxDockerfile bounds one that comes through stdin.
const maxDockerfile = 16 << 20

func isRemoteContext(s string) bool {
	for _, p := range []string{"http://", "https://", "git://", "git@", "github.com/", "ssh://"} {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}

// attrs translates flags to the names of the frontend.
func (o *buildFlags) attrs(b *client.Build) error {
	for _, kv := range o.args {
		k, v, ok := strings.Cut(kv, "=")
		if k == "" {
			return errdef.Invalid("invalid build argument %q: want NAME=VALUE", kv)
		}
		if !ok {
			if v, ok = os.LookupEnv(k); !ok {
				continue
			}
		}
		b.Attrs["build-arg:"+k] = v
	}
	if v, ok := b.Attrs["build-arg:SOURCE_DATE_EPOCH"]; ok || os.Getenv("SOURCE_DATE_EPOCH") != "" {
		if !ok {
			v = os.Getenv("SOURCE_DATE_EPOCH")
			b.Attrs["build-arg:SOURCE_DATE_EPOCH"] = v
		}
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil && v != "" {
			return errdef.Invalid("invalid SOURCE_DATE_EPOCH %q: want seconds since 1970", v)
		}
		if err == nil {
			b.Epoch = new(time.Unix(n, 0))
		}
	}
	for _, kv := range o.labels {
		k, v, _ := strings.Cut(kv, "=")
		b.Attrs["label:"+k] = v
	}
	for name, v := range map[string]string{
		"target": o.target, "platform": o.platform, "shm-size": o.shmSize, "cgroup-parent": o.cgroupParent,
		"add-hosts": strings.Join(o.hosts, ","), "ulimit": strings.Join(o.ulimits, ","),
	} {
		if v != "" {
			b.Attrs[name] = v
		}
	}
	switch o.network {
	case "", "default":
	case "none", "host":
		b.Attrs["force-network-mode"] = o.network
		if o.network == "host" && !slices.Contains(b.Allow, "network.host") {
			b.Allow = append(b.Allow, "network.host")
		}
	default:
		return errdef.NotImplemented("the network %q for steps is not there yet: default, none or host", o.network)
	}
	if o.noCache {
		b.Attrs["no-cache"] = ""
	} else if len(o.noCacheFilter) > 0 {
		b.Attrs["no-cache"] = strings.Join(o.noCacheFilter, ",")
	}
	if o.pull {
		b.Attrs["image-resolve-mode"] = "pull"
	}
	if o.check {
		o.call = "check"
	}
	switch o.call {
	case "build":
	case "check", "lint":
		o.call = "check"
		b.Attrs["requestid"] = "frontend.lint"
	case "outline", "targets":
		b.Attrs["requestid"] = "frontend." + o.call
	default:
		return errdef.Invalid("invalid value %q of --call: want build, check, outline or targets", o.call)
	}
	for _, kv := range o.contexts {
		if err := o.namedContext(b, kv); err != nil {
			return err
		}
	}
	return nil
}

func (o *buildFlags) namedContext(b *client.Build, kv string) error {
	name, v, ok := strings.Cut(kv, "=")
	if !ok || name == "" || v == "" {
		return errdef.Invalid("invalid context value: %s, expected key=value", kv)
	}
	if strings.Contains(v, "://") || strings.HasPrefix(v, "git@") {
		b.Attrs["context:"+name] = v
		return nil
	}
	dir, err := filepath.Abs(v)
	if err != nil {
		return err
	}
	if st, err := os.Stat(dir); err != nil || !st.IsDir() {
		return errdef.Invalid("failed to get build context %s: %s is not a directory", name, v)
	}
	b.Locals[name] = dir
	b.Attrs["context:"+name] = "local:" + name
	return nil
}

// givings reads secrets and finds agents.
func (o *buildFlags) givings(b *client.Build) error {
	for _, s := range o.secrets {
		id, value, err := readSecret(s)
		if err != nil {
			return err
		}
		b.Secrets[id] = value
	}
	for _, s := range o.agents {
		id, socket, _ := strings.Cut(s, "=")
		if socket == "" {
			if socket = os.Getenv("SSH_AUTH_SOCK"); socket == "" {
				return errdef.Invalid("invalid empty ssh agent socket: make sure SSH_AUTH_SOCK is set")
			}
		}
		abs, err := filepath.Abs(socket)
		if err != nil {
			return err
		}
		if st, err := os.Stat(abs); err != nil || st.Mode()&fs.ModeSocket == 0 {
			return errdef.Invalid("%s is no socket of an ssh agent", socket)
		}
		b.Agents[id] = abs
	}
	return nil
}

// maxBuildSecret is what BuildKit takes.
const maxBuildSecret = 500 << 10

// readSecret reads what id=ID[,src=FILE|env=NAME] names.
func readSecret(s string) (id string, value []byte, err error) {
	var file, env, kind string
	for field := range strings.SplitSeq(s, ",") {
		k, v, ok := strings.Cut(field, "=")
		if !ok {
			return "", nil, errdef.Invalid("invalid field %q must be a key=value pair", field)
		}
		switch strings.ToLower(k) {
		case "id":
			id = v
		case "src", "source":
			file = v
		case "env":
			env = v
		case "type":
			kind = v
		default:
			return "", nil, errdef.Invalid("unexpected key %q in %q", k, field)
		}
	}
	if id == "" {
		return "", nil, errdef.Invalid("secret %q has no id", s)
	}
	if kind != "" && kind != "file" && kind != "env" {
		return "", nil, errdef.Invalid("unsupported secret type %q", kind)
	}
	if kind == "env" && env == "" {
		env, file = file, ""
	}
	if env == "" && file == "" && kind != "file" {
		if _, ok := os.LookupEnv(id); ok {
			env = id
		}
	}
	if env != "" {
		return id, []byte(os.Getenv(env)), nil
	}
	if file == "" {
		file = id
	}
	f, err := os.Open(file)
	if err != nil {
		return "", nil, errdef.As(errdef.ErrInvalid, fmt.Errorf("secret %s: %w", id, plainPathError(err)))
	}
	defer f.Close()
	value, err = io.ReadAll(io.LimitReader(f, maxBuildSecret+1))
	if err == nil && len(value) > maxBuildSecret {
		err = errdef.Invalid("secret %s is larger than %d bytes", id, maxBuildSecret)
	}
	return id, value, err
}
