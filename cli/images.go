package cli

import (
	"iter"
	"slices"
	"strings"
	"time"

	"hull/client"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"
)

func buildImages(a *app, cmd *cobra.Command) {
	var o imagesOptions
	cmd.Use += " [OPTIONS] [REPOSITORY[:TAG]]"
	cmd.Args = a.arguments(0, 1)
	f := cmd.Flags()
	f.BoolVarP(&o.all, "all", "a", false, "Show all images, intermediate ones too")
	f.BoolVar(&o.digests, "digests", false, "Show digests")
	f.VarP(&o.filter, "filter", "f", "Show only what matches (dangling=true, label=a=b, reference=pattern, ...)")
	f.StringVar(&o.format, "format", "", formatUsage)
	f.BoolVar(&o.noTrunc, "no-trunc", false, "Do not shorten anything")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "Print ids only")
	refusedFlags(f, []refused{{name: "tree", boolean: true, why: "is not in this version yet"}})
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 1 {
			if err := o.filter.Set("reference=" + args[0]); err != nil {
				return err
			}
		}
		return a.images(cmd, o)
	}
}

type imagesOptions struct {
	all, digests, noTrunc, quiet bool
	filter                       filterFlag
	format                       string
}

func (a *app) images(cmd *cobra.Command, o imagesOptions) error {
	if o.format == "" && !o.quiet {
		o.format = a.docker().ImagesFormat
	}
	if err := checkFormat(o.format); err != nil {
		return err
	}
	c, err := a.engine()
	if err != nil {
		return err
	}
	list, err := c.ImageList(cmd.Context(), client.ImageListOptions{
		All: o.all, Filters: o.filter.f, LastUsed: strings.Contains(o.format, ".LastUsed"),
	})
	if err != nil {
		return err
	}
	digests := o.digests || strings.Contains(o.format, ".Digest")
	now := time.Now()
	var rows []any
	for i := range list {
		rows = append(rows, imageRows(&list[i], digests, !o.noTrunc, now)...)
	}
	if o.quiet {
		return a.printIDs(o.format, rows)
	}
	columns := imageColumns[:]
	if o.digests {
		columns = slices.Insert(slices.Clone(columns), 2, column{"Digest", "DIGEST"})
	}
	return a.printRows(o.format, columns, imageHeaders(), rows, o.noTrunc)
}

var imageColumns = [...]column{
	{"Repository", "REPOSITORY"}, {"Tag", "TAG"}, {"ID", "IMAGE ID"}, {"CreatedSince", "CREATED"}, {"Size", "SIZE"},
}

func imageHeaders() map[string]string {
	h := map[string]string{
		"Digest": "DIGEST", "CreatedAt": "CREATED AT", "Containers": "CONTAINERS",
		"VirtualSize": "SIZE", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE", "LastUsed": "LAST USED",
	}
	for _, c := range imageColumns {
		h[c.method] = c.header
	}
	return h
}

const none = "<none>"

// imageRows is a row for each name of an image; with digests also for those names that are a digest only.
func imageRows(s *client.ImageSummary, digests, short bool, now time.Time) []any {
	var rows []any
	add := func(repo, tag, digest string) {
		rows = append(rows, &imageRow{s: s, repo: repo, tag: tag, digest: digest, short: short, now: now})
	}
	// No maps: an image has a handful of names, and there are a thousand images.
	var tagged []string
	for _, ref := range s.RepoTags {
		repo, tag := splitTag(ref)
		if repo == none {
			continue
		}
		tagged = append(tagged, repo)
		before := len(rows)
		if digests {
			for d := range digestsOf(s, repo) {
				add(repo, tag, d)
			}
		}
		if len(rows) == before {
			add(repo, tag, none)
		}
	}
	var untagged []string
	for _, d := range s.RepoDigests {
		if repo, _, ok := strings.Cut(d, "@"); ok && repo != none && !slices.Contains(tagged, repo) {
			untagged = append(untagged, repo)
		}
	}
	slices.Sort(untagged)
	for _, repo := range slices.Compact(untagged) {
		if !digests {
			add(repo, none, none)
			continue
		}
		for d := range digestsOf(s, repo) {
			add(repo, none, d)
		}
	}
	if len(rows) == 0 {
		add(none, none, none)
	}
	return rows
}

// digestsOf are the digests that name an image in repo.
func digestsOf(s *client.ImageSummary, repo string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, d := range s.RepoDigests {
			if r, digest, ok := strings.Cut(d, "@"); ok && r == repo && !yield(digest) {
				return
			}
		}
	}
}

// splitTag cuts the tag off a reference; a colon before a slash belongs to a port.
func splitTag(ref string) (repo, tag string) {
	i := strings.LastIndex(ref, ":")
	if i < 0 || strings.Contains(ref[i:], "/") {
		return ref, ""
	}
	return ref[:i], ref[i+1:]
}

// imageRow has the fields Docker's templates for lists of images know.
type imageRow struct {
	s                 *client.ImageSummary
	repo, tag, digest string
	short             bool
	now               time.Time
}

func (*imageRow) isRow() {}

func (*imageRow) spare() []string { return []string{"ID", "CreatedSince"} }

func (r *imageRow) known(field string) (string, bool) {
	switch field {
	case "Repository":
		return r.repo, true
	case "Tag":
		return r.tag, true
	case "ID":
		return r.ID(), true
	case "CreatedSince":
		return r.CreatedSince(), true
	case "Size":
		return r.Size(), true
	}
	return "", false
}

func (r *imageRow) ID() string {
	if r.short {
		return shortID(r.s.ID)
	}
	return r.s.ID
}

func (r *imageRow) Repository() string   { return r.repo }
func (r *imageRow) Tag() string          { return r.tag }
func (r *imageRow) Digest() string       { return r.digest }
func (r *imageRow) CreatedSince() string { return ago(time.Unix(r.s.Created, 0), r.now) }
func (r *imageRow) CreatedAt() string    { return time.Unix(r.s.Created, 0).String() }

// lacks: Docker's rows know nothing of it.
func (r *imageRow) lacks(field string) bool { return field == "LastUsed" && r.s.LastUsed == 0 }

func (r *imageRow) LastUsed() string    { return ago(time.Unix(r.s.LastUsed, 0), r.now) }
func (r *imageRow) Size() string        { return size(r.s.Size) }
func (r *imageRow) VirtualSize() string { return units.HumanSize(float64(r.s.Size)) }

func (r *imageRow) Containers() string { return knownNumber(r.s.Containers) }

func (r *imageRow) SharedSize() string {
	if r.s.SharedSize < 0 {
		return "N/A"
	}
	return size(r.s.SharedSize)
}

func (r *imageRow) UniqueSize() string {
	if r.s.SharedSize < 0 {
		return "N/A"
	}
	return size(r.s.Size - r.s.SharedSize)
}
