package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"hull/client"
	"hull/errdef"
	"hull/ref"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/spf13/cobra"
)

func buildCreate(a *app, cmd *cobra.Command) {
	cmd.Use += " [OPTIONS] IMAGE [COMMAND] [ARG...]"
	cmd.Args = a.arguments(1, -1)
	o := containerFlags(cmd.Flags())
	refuseFlags(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		req, err := o.request(args[0], args[1:])
		if err != nil {
			return a.usageHint(cmd, err)
		}
		c, err := a.engine()
		if err != nil {
			return err
		}
		id, err := a.createContainer(cmd.Context(), c, o, req, false)
		if err != nil {
			return err
		}
		a.out.println(id)
		return nil
	}
}

// usageHint is an error in the values of flags.
func (a *app) usageHint(cmd *cobra.Command, err error) error {
	var h *hinted
	if !errors.As(err, &h) {
		err = hint(err, "\nRun '"+cmd.CommandPath()+" --help' for more information")
	}
	return status(exitEngine, err)
}

// createContainer makes the container, writes its id where --cidfile says, and prints the engine's warnings.
func (a *app) createContainer(ctx context.Context, c *client.Client, o *options, req container.CreateRequest, startSoon bool) (string, error) {
	cid, err := openIDFile(o.cidfile)
	if err != nil {
		return "", err
	}
	defer cid.abandon()
	if o.pull == "always" {
		if err := a.pullFor(ctx, c, o, req.Image); err != nil {
			return "", err
		}
	}
	req.Env = a.withProxies(req.Env)
	how := client.CreateOptions{Name: o.name, Platform: o.platform, StartSoon: startSoon}
	created, err := c.ContainerCreate(ctx, how, req)
	for wanted := neededImages(req.HostConfig, req.Image); o.pull != "never" && isMissing(err); {
		var image string
		if image, wanted = missing(wanted, err); image == "" {
			break // it was brought before, and is missing all the same
		}
		if err = a.pullMissing(ctx, c, o, image, err); err == nil {
			created, err = c.ContainerCreate(ctx, how, req)
		}
	}
	if err != nil {
		return "", err
	}
	if o.flags.Changed("kernel-memory") {
		a.warn(noKernelMemory)
	}
	for _, w := range created.Warnings {
		a.warn(w)
	}
	if err := cid.write(created.ID); err != nil {
		// Who asked for the id in a file has no other way to it.
		if left := a.takeBack(c, created.ID); left != nil {
			return "", errors.Join(err, left)
		}
		return "", hint(err, "The container was removed again.")
	}
	return created.ID, nil
}

// takeBack removes a container that was made and will not be used.
func (a *app) takeBack(c *client.Client, id string) error {
	ctx, cancel := context.WithTimeout(context.Background(), removalGrace)
	defer cancel()
	gone := client.RemoveOptions{Removal: client.Removal{Now: true}, Force: true, Volumes: true}
	if _, err := c.ContainerRemove(ctx, id, gone); err != nil && !errors.Is(err, errdef.ErrNotFound) {
		return err
	}
	return nil
}

// noSuchImage is how engines say that they have not got an image, before its name.
const noSuchImage = "No such image: "

// isMissing says whether an engine has not got the image of a container.
func isMissing(err error) bool {
	return errors.Is(err, errdef.ErrNotFound) && strings.Contains(err.Error(), noSuchImage)
}

// neededImages are those that a container needs: its own, then those it mounts.
func neededImages(host *container.HostConfig, own string) []string {
	list := []string{own}
	if host == nil {
		return list
	}
	for _, m := range host.Mounts {
		if m.Type == mount.TypeImage {
			list = append(list, m.Source)
		}
	}
	return list
}

// missing takes from wanted the image that err names, or the only one.
func missing(wanted []string, err error) (image string, rest []string) {
	if len(wanted) == 1 {
		return wanted[0], nil
	}
	_, said, _ := strings.Cut(err.Error(), noSuchImage)
	for i, image := range wanted {
		r, bad := ref.Parse(image)
		if bad != nil {
			continue
		}
		if name := r.Tagged().Familiar(); said == name || strings.HasPrefix(said, name+": ") {
			return image, slices.Delete(slices.Clone(wanted), i, i+1)
		}
	}
	return "", nil
}

// pullMissing brings the image that is missing, if its name is one that a registry can know.
func (a *app) pullMissing(ctx context.Context, c *client.Client, o *options, image string, missing error) error {
	r, err := ref.Parse(image)
	if err != nil {
		return missing
	}
	if !o.quiet {
		a.err.printf("Unable to find image '%s' locally\n", r.Tagged().Familiar())
	}
	return a.pullFor(ctx, c, o, image)
}

// pullFor brings the image of a container. What is said of it goes to stderr: stdout is the container's.
func (a *app) pullFor(ctx context.Context, c *client.Client, o *options, image string) error {
	r, err := ref.Parse(image)
	if err != nil {
		return err
	}
	t, err := a.newTransfer(a.err, o.quiet, "")
	if err != nil {
		return err
	}
	return a.pull(ctx, c, t, r.Tagged(), client.PullOptions{Platform: o.platform})
}

// idFile is the file of --cidfile. It must not exist; what could not be used is removed.
type idFile struct {
	f    *os.File
	kept bool
}

func openIDFile(name string) (*idFile, error) {
	if name == "" {
		return &idFile{}, nil
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, hint(errdef.Conflict("container ID file found, make sure the other container isn't running or delete %s", name),
			"A container's id is never written over another one's.")
	}
	if err != nil {
		cure := "Give --cidfile a path where this user can make a file. No container was made."
		if errors.Is(err, os.ErrNotExist) {
			cure = "There is no directory " + filepath.Dir(name) + ": make it, or give --cidfile another path. No container was made."
		}
		return nil, hint(errdef.Invalid("failed to create the container ID file: %w", plainPathError(err)), cure)
	}
	return &idFile{f: f}, nil
}

func (c *idFile) write(id string) error {
	if c.f == nil {
		return nil
	}
	_, err := c.f.WriteString(id)
	if err = errors.Join(err, c.f.Close()); err != nil {
		return fmt.Errorf("failed to write the container ID file: %w", plainPathError(err))
	}
	c.kept = true
	return nil
}

func (c *idFile) abandon() {
	if c.f != nil && !c.kept {
		c.f.Close()
		os.Remove(c.f.Name())
	}
}
