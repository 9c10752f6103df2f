// Package s3 keeps a cache in one S3 bucket that any number of nodes share, and shares nothing else.
//
// The bucket holds an append-only log. All objects but one are written once, under random names that are never used twice:
//
//	manifest     names the index and what is condemned, pinned and purged; swapped by If-Match; never deleted
//	pack/<id>    records: blobs and pointers of actions; by a commit; deleted by gc
//	tail/<id>    the index of pack/<id>; by the same commit after the pack; deleted by compaction and gc
//	run/<id>     the index of many packs; by compaction; swept by gc when no manifest names it
//	shard/<id>   a 256th of the index, by the hash's first byte; like a run
//	touch/<id>   uses; by any node now and then; deleted by the gc that took them up
//	root/<id>    the digests of a pinned deployment; by AddRoot; swept like a run
//	probe/<id>   tests whether the bucket honours conditions; by every writer once
//
// A commit puts a pack, then its tail, and then acknowledges. A look lists tail/, reads the tails that are new, and then
// the manifest. Compaction reads the manifest, then the tails, writes them as runs or shards, swaps the manifest and
// deletes the tails. Gc does the same, has the manifest condemn packs, and deletes those condemned long ago. What is
// condemned reads as missing to FindMissing, to lookups of actions and to the dedup of uploads, and can still be read.
//
// R is Freshness, P the longest promise that the manifest records, L the three hours that a commit may take at most,
// G = R + P + Slack the grace, or L if that is longer. Why it is safe:
//
//  1. One history: each manifest replaces the one that its writer read, or the swap fails. Where a bucket ignores If-Match
//     (probe), nothing is ever swapped or deleted.
//  2. A commit is seen: a tail leaves tail/ only after a manifest took up what it says. A look lists first and reads the
//     manifest last, so what was acknowledged before it is in one or the other. If that manifest condemns more than was
//     known, there may be copies that were not listed: it looks again. Only after such a look is a miss a miss.
//  3. Nothing condemned comes back: whether a record counts is a property of its pack, not of the entry. The manifest is
//     read before the first tail, lists what is condemned, and entries that are loaded later obey it, too.
//  4. Nothing deleted comes back: an entry leaves the index, and its pack the list of the condemned, in one swap, and only
//     when no tail names the pack. A node that missed the condemning finds its generation under Floor and forgets all.
//     Tails that were listed before something was forgotten are not taken up (epoch).
//  5. A late request does no harm: a tail that is written more than L after its pack is void for everyone and for ever, as
//     L is the same whatever is promised. A pack can't be deleted before it was condemned, G earlier, so a tail that
//     appears after that is void. A late swap fails (1), or is of a manifest that names nothing but objects too young to
//     be swept: AddRoot, which would try again with a new manifest, gives up after L.
//  6. A promise holds: "present" is said from a view younger than R, of a pack that this view doesn't condemn. If it was
//     condemned since, then less than R ago; it is deleted G after that, by S3's own dates, so P + Slack after the answer.
//     An acknowledgement rests on nothing older than half of Slack.
//  7. What is wanted is not condemned: gc ranks what a fold saw, and commits copies of what it keeps, into new packs alone,
//     before it condemns the pack. The swap that condemns fails if the roots or the condemned are no longer those that it
//     chose by (samePins). AddRoot checks its digests by the very manifest that its swap replaces, so one of the two sees
//     the other.
//  8. A sweep takes no commit: packs are listed before the index is read, and count as strays at an age of 2 L only. A tail
//     that counts came within L, so the index that was read names its pack.
//  9. Touches rank and do nothing else: to lose them costs hits, not promises.
//
// A node's own clock measures how long something took; all dates that are compared are S3's. A bucket whose answers and
// listings are dated by different clocks is refused (probe), and what has no date is not deleted.
//
// Only the manifest can make an entry count that no tail has. If index or manifest are lost or damaged, Rebuild makes them
// from the packs, which hold all but roots, purges and what was condemned. Do not run gc while it runs.
package s3
