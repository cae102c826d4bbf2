package image

import (
	"context"
	"time"
)

// Summary is one line of `hull images`.
type Summary struct {
	ID          string
	RepoTags    []string // in familiar form ("busybox:latest"); empty when dangling
	RepoDigests []string
	Created     time.Time
	Size        int64
	Labels      map[string]string
}

// List returns all images, newest first.
func (s *Store) List(ctx context.Context) ([]Summary, error) { panic("not yet") }

// HistoryLine is one line of `hull history`, newest first.
type HistoryLine struct {
	ID string // of the image, on the first line; "<missing>" below
	History
	Size int64
	Tags []string
}

// History returns the steps that made the image name.
func (s *Store) History(ctx context.Context, name string) ([]HistoryLine, error) { panic("not yet") }
