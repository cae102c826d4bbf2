package image

import "context"

// Tag lets the reference target name the image that source names. by is the command, for the log.
func (s *Store) Tag(ctx context.Context, source, target, by string) error { panic("not yet") }

// User is a container that uses an image.
type User struct {
	ID      string
	Running bool
}

// RemoveOptions are for Remove.
type RemoveOptions struct {
	Force   bool
	NoPrune bool
	InUse   func(id string) []User          // the containers made from the image id; nil means none
	Kept    func() (map[string]bool, error) // chain ids of layers that containers are mounted on; nil means none
	By      string                          // the command, for the log of references; "" is "rmi"
}

// Deleted is one line of `hull rmi`: exactly one of the fields is set.
type Deleted struct {
	Untagged string
	Deleted  string
}

// Remove takes the reference name away and, when it was the last one, the image; name may be an id. Layers go
// when nothing needs them any more.
func (s *Store) Remove(ctx context.Context, name string, opts RemoveOptions) ([]Deleted, error) {
	panic("not yet")
}
