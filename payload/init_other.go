//go:build !amd64 && !arm64

package payload

// Init is nil: there is none for this architecture.
func Init() []byte { return nil }
