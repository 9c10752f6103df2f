//go:build !linux

package disk

import (
	"errors"
	"os"
)

// bootID is not known here: after a crash of the machine the count of bytes may be off until the next eviction.
func bootID() string { return "" }

// canSyncAll says that files are synced one by one here.
const canSyncAll = false

func syncAll(*os.File) error { return errors.ErrUnsupported }
