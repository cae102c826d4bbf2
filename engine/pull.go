package engine

import (
	"context"

	"hull/errdef"
	"hull/image"
	"hull/ref"
)

// PullOptions are for PullImage.
type PullOptions struct {
	Remote
	Platform     string // os/arch[/variant]; "" is this machine's
	AllPlatforms bool   // of an index, all its images
	Progress     func(image.Progress)
	Done         func(image.Pulled, ref.Ref) // called for each image that has come; may be nil
}

// PullImage brings an image from its registry. tag, also a digest, is what name lacks; without either all tags of the
// repository are brought, as in Docker's API.
func (e *Engine) PullImage(ctx context.Context, name, tag string, o PullOptions) error {
	if err := e.ready(); err != nil {
		return err
	}
	r, err := reference(name, tag)
	if err != nil {
		return err
	}
	repo, err := e.repository(ctx, r, o.Remote, false)
	if err != nil {
		return err
	}
	defer repo.Close()
	all := []ref.Ref{r}
	if r.Tag == "" && r.Digest == "" {
		tags, err := repo.Tags(ctx)
		if err != nil {
			return err
		}
		if all, err = tagged(r, tags); err != nil {
			return err
		}
	}
	c, err := e.Config()
	if err != nil {
		return err
	}
	for _, r := range all {
		var done image.Pulled
		err := e.roomy(ctx, func() (err error) {
			done, err = e.images().Pull(ctx, repo, r, image.PullOptions{
				Platform: o.Platform, AllPlatforms: o.AllPlatforms, Downloads: c.Registry.Downloads, Progress: o.Progress,
				Peer: o.Peer != nil, By: pulledBy(o.Peer),
			})
			return err
		})
		if err != nil {
			return e.storeError(err)
		}
		if o.Done != nil {
			o.Done(done, r)
		}
		e.imageEvent("pull", r.Familiar(), r.FamiliarName())
	}
	e.keepBudget(ctx)
	return nil
}

// pulledBy is the command, for the log of references.
func pulledBy(p *Peer) string {
	if p == nil {
		return "pull"
	}
	return "pull from " + p.Name
}

// tagged are the references of the tags, which a registry said.
func tagged(r ref.Ref, tags []string) ([]ref.Ref, error) {
	if len(tags) == 0 {
		return nil, errdef.NotFound("no tags of %s", r.FamiliarName())
	}
	all := make([]ref.Ref, 0, len(tags))
	for _, tag := range tags {
		t, err := ref.Parse(r.Name() + ":" + tag)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}
