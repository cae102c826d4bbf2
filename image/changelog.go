package image

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"hull/errdef"
	"hull/image/packages"
	"hull/image/tree"
)

// Changelog is what a person would say of how one image became another.
type Changelog struct {
	Packages []packages.Change
	Config   []Setting
	Layers   []LayerStep // of the new image, lowest first, then those of the old one that are gone
	Files    FileSummary // its findings are all there are
	Notes    []string    // what could not be found out
}

// LayerStep is a layer that only one of the images has, with the step of the history that made it.
type LayerStep struct {
	DiffID  string
	Removed bool  // only the old image has it
	Size    int64 // bytes of its files
	Step    string
	// Added, Changed and Deleted count the files of which this layer says what they are in the new image.
	Added, Changed, Deleted int
}

// maxNotes bounds what is said of files that cannot be read.
const maxNotes = 20

// Changelog reads what the files that differ say about packages, and which layers differ.
func (c *Comparison) Changelog(ctx context.Context) (*Changelog, error) {
	out := &Changelog{Config: c.Config, Notes: []string{}}
	steps, err := c.steps()
	if err != nil {
		return nil, err
	}
	var before, after []packages.Package
	sum, err := c.Files(ctx, func(f *tree.Change) error {
		if f.Layer >= 0 && f.Layer < len(steps.young) {
			steps.young[f.Layer].count(f.Kind)
		}
		before = out.read(before, f.Path, f.Old, f.OpenOld)
		after = out.read(after, f.Path, f.New, f.OpenNew)
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.Files, out.Layers = *sum, steps.different()
	out.Packages = packages.Compare(before, after)
	for _, p := range out.Packages {
		if p.How == "down" {
			out.Files.Findings = append(out.Files.Findings, Finding{RuleDowngrade, fmt.Sprintf("%s %s was %s and is %s", p.Kind, p.Name, p.Old, p.Version)})
		}
	}
	return out, nil
}

func (l *LayerStep) count(k tree.Kind) {
	switch k {
	case tree.Added:
		l.Added++
	case tree.Changed:
		l.Changed++
	case tree.Deleted:
		l.Deleted++
	}
}

// read adds the packages that a file of one of the images names.
func (l *Changelog) read(list []packages.Package, path string, e *tree.Entry, open func() (*os.File, error)) []packages.Package {
	if e == nil || e.Type != 0 || e.Size == 0 {
		return list
	}
	src := packages.SourceOf(path, e.Mode&0o111 != 0)
	if src == nil {
		return list
	}
	f, err := open()
	if err == nil {
		var found []packages.Package
		found, err = src.Read(f, e.Size)
		list = append(list, found...)
		f.Close()
	}
	if err != nil {
		l.note(path, err)
	}
	return list
}

func (l *Changelog) note(path string, err error) {
	text := err.Error()
	if !strings.Contains(text, path) {
		text = path + ": " + text
	}
	if len(l.Notes) < maxNotes && !slices.Contains(l.Notes, text) {
		l.Notes = append(l.Notes, text)
	}
}

// layerSteps are the layers of both images, lowest first.
type layerSteps struct{ old, young []LayerStep }

func (c *Comparison) steps() (s layerSteps, err error) {
	if s.old, err = c.s.stepsOf(c.Old); err != nil {
		return s, err
	}
	s.young, err = c.s.stepsOf(c.New)
	return s, err
}

// stepsOf names for each layer the step that made it. A history that does not fit the layers names none.
func (s *Store) stepsOf(img *Image) ([]LayerStep, error) {
	var made []string
	for _, h := range img.Config.History {
		if !h.EmptyLayer {
			made = append(made, stepText(h))
		}
	}
	out := make([]LayerStep, len(img.Layers))
	for i, l := range img.Layers {
		rec, err := s.readLayer(l.ChainID)
		if err != nil && !errors.Is(err, errdef.ErrCorrupt) && !os.IsNotExist(err) {
			return nil, err
		}
		out[i] = LayerStep{DiffID: l.DiffID, Size: rec.Size}
		if len(made) == len(img.Layers) {
			out[i].Step = made[i]
		}
	}
	return out, nil
}

// stepText is a step as its author wrote it, as far as that can be told.
func stepText(h History) string {
	s := strings.TrimSuffix(strings.TrimSpace(h.CreatedBy), " # buildkit")
	if rest, ok := strings.CutPrefix(s, "/bin/sh -c #(nop) "); ok {
		return strings.TrimSpace(rest)
	}
	if rest, ok := strings.CutPrefix(strings.TrimPrefix(s, "RUN "), "/bin/sh -c "); ok {
		return "RUN " + rest
	}
	if s == "" {
		return h.Comment
	}
	return s
}

// different leaves out the layers that both images have, wherever they are in them.
func (s layerSteps) different() []LayerStep {
	has := func(list []LayerStep, l LayerStep) bool {
		return slices.ContainsFunc(list, func(o LayerStep) bool { return o.DiffID == l.DiffID })
	}
	out := []LayerStep{}
	for _, l := range s.young {
		if !has(s.old, l) {
			out = append(out, l)
		}
	}
	for _, l := range s.old {
		if !has(s.young, l) {
			l.Removed = true
			out = append(out, l)
		}
	}
	return out
}
