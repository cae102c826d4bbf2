package trash

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"time"

	"hull/errdef"
	"hull/state"

	"golang.org/x/sys/unix"
)

// Limits bound what is kept.
type Limits struct {
	Keep  time.Duration // how long
	Size  int64         // bytes of all
	Count int           // items
	Free  int64         // bytes of the file system that are to stay free
}

// often is every how many removals a Tidy adds up all sizes: reading that many records costs little, and a trash of a
// thousand is not read for each.
const often = 16

// Tidy removes for good what is over the limits, the oldest first, and returns it. measure finds sizes that nobody knows
// yet; without it the sizes of all are added up at some removals only.
func (s *Store) Tidy(ctx context.Context, l Limits, measure func(*Item) int64) ([]*Item, error) {
	numbers, err := s.numbers()
	if err != nil || len(numbers) == 0 {
		return nil, err
	}
	var gone []*Item
	drop := func(i *Item) error {
		err := s.Remove(ctx, i.Number)
		if errors.Is(err, errdef.ErrNotFound) { // somebody else does the same
			return nil
		}
		if err == nil {
			gone = append(gone, i)
		}
		return err
	}
	now := s.now()
	for len(numbers) > 0 {
		i := s.listed(numbers[0])
		if i == nil {
			numbers = numbers[1:]
			continue
		}
		if len(numbers) <= l.Count && !s.expired(i, l.Keep, now) && s.free() >= l.Free {
			break
		}
		if err := drop(i); err != nil {
			return gone, err
		}
		numbers = numbers[1:]
	}
	if len(numbers) == 0 || measure == nil && numbers[len(numbers)-1]%often != 0 {
		return gone, nil
	}
	list, sum := make([]*Item, 0, len(numbers)), int64(0)
	for _, n := range numbers {
		i := s.listed(n)
		if i == nil {
			continue
		}
		if i.Size < 0 && measure != nil {
			i.Size = measure(i)
			s.rewrite(i)
		}
		if i.Size > l.Size { // nothing else has to go for it
			if err := drop(i); err != nil {
				return gone, err
			}
			continue
		}
		list = append(list, i)
		sum += max(i.Size, 0)
	}
	for ; sum > l.Size; list = list[1:] {
		if err := drop(list[0]); err != nil {
			return gone, err
		}
		sum -= max(list[0].Size, 0)
	}
	return gone, nil
}

// expired says whether the time of a thing is over. One that was removed in the future, as somebody has set the clock back,
// was removed now: or it would stay for as long as the clock was wrong.
func (s *Store) expired(i *Item, keep time.Duration, now moment) bool {
	if keep <= 0 {
		return true
	}
	age, known := i.age(now)
	if known && age < -time.Minute {
		i.Removed = now.wall
		i.stamp(now)
		_ = os.Chtimes(i.dir, now.wall, now.wall) // which is what counts where the record is damaged
		s.rewrite(i)
		age = 0
	}
	return known && age >= keep
}

// rewrite writes the record of a listed item; one that has gone meanwhile, or is damaged, stays as it is.
func (s *Store) rewrite(i *Item) {
	if i.Damaged != "" {
		return
	}
	if data, err := json.Marshal(&i.Record); err == nil {
		_ = state.Write(i.Path(recordFile), data)
	}
}

// free is how many bytes of the file system can still be written; a great many when nobody knows.
func (s *Store) free() int64 {
	free, _ := Space(s.dir)
	return free
}

// Space is how many bytes of the file system of dir are free for its user, and how many there are. Where no more files
// can be made, nothing is free.
func Space(dir string) (free, all int64) {
	const unknown = 1 << 62
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Bsize <= 0 || st.Blocks == 0 {
		return unknown, unknown
	}
	all = int64(st.Blocks) * st.Bsize
	if st.Files > 0 && st.Ffree < 64 {
		return 0, all
	}
	return int64(st.Bavail) * st.Bsize, all
}
