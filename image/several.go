package image

import (
	"context"
	"sync"
)

// several calls f for each of the list, in this order and n at once. The first error ends the context of the others, and is
// what it returns once they have ended; or else the cause for which ctx ended.
func several[T any](ctx context.Context, n int, list []T, f func(ctx context.Context, v T) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slots := make(chan struct{}, n)
	var wg sync.WaitGroup
	for _, v := range list {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := f(ctx, v); err != nil {
				cancel(err)
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}
