package engine

import (
	"context"

	"hull/image"
)

// CompareImages says how the image old became young: see image.Comparison, which the caller closes.
func (e *Engine) CompareImages(ctx context.Context, old, young string) (*image.Comparison, error) {
	if err := e.ready(); err != nil {
		return nil, err
	}
	if err := e.bring(ctx, old, young); err != nil {
		return nil, err
	}
	c, err := e.images().Compare(ctx, old, young)
	return c, e.storeError(err)
}
