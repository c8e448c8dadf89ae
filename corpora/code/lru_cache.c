/*
 * A cache that keeps the most recently used entries.
 *
 * The entries form a doubly linked list, newest first, and a small hash
 * table with chains finds an entry by its key. Both operations, lru_get()
 * and lru_put(), take constant time on average.
 */
#include <assert.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

struct entry {
	uint64_t key;
	int value;
	struct entry *newer, *older;	/* neighbours in the list */
	struct entry *next;		/* next entry in the same bucket */
};

struct lru {
	size_t capacity, size, nbuckets;
	struct entry ring;		/* ring.older is the newest entry */
	struct entry **buckets;
	struct entry *pool;
};

static size_t bucket_of(const struct lru *c, uint64_t key)
{
	key ^= key >> 32;
	key *= 0x9e3779b97f4a7c15u;
	return (size_t)(key >> 20) & (c->nbuckets - 1);
}

struct lru *lru_new(size_t capacity)
{
	struct lru *c;

	if (capacity == 0 || !(c = calloc(1, sizeof *c)))
		return NULL;
	c->capacity = capacity;
	c->nbuckets = 8;
	while (c->nbuckets < 2 * capacity)
		c->nbuckets *= 2;
	c->buckets = calloc(c->nbuckets, sizeof *c->buckets);
	c->pool = calloc(capacity, sizeof *c->pool);
	if (!c->buckets || !c->pool) {
		free(c->buckets);
		free(c->pool);
		free(c);
		return NULL;
	}
	c->ring.newer = c->ring.older = &c->ring;
	return c;
}

void lru_free(struct lru *c)
{
	if (!c)
		return;
	free(c->buckets);
	free(c->pool);
	free(c);
}

static void unlink_entry(struct entry *e)
{
	e->newer->older = e->older;
	e->older->newer = e->newer;
}

static void link_newest(struct lru *c, struct entry *e)
{
	e->newer = &c->ring;
	e->older = c->ring.older;
	c->ring.older->newer = e;
	c->ring.older = e;
}

static struct entry *find(const struct lru *c, uint64_t key)
{
	struct entry *e = c->buckets[bucket_of(c, key)];

	while (e && e->key != key)
		e = e->next;
	return e;
}

/* Returns 1 and stores the value if the key is known, otherwise 0. */
int lru_get(struct lru *c, uint64_t key, int *value)
{
	struct entry *e = find(c, key);

	if (!e)
		return 0;
	unlink_entry(e);
	link_newest(c, e);
	*value = e->value;
	return 1;
}

void lru_put(struct lru *c, uint64_t key, int value)
{
	struct entry *e = find(c, key);
	struct entry **p;

	if (e) {
		unlink_entry(e);
	} else {
		if (c->size < c->capacity) {
			e = &c->pool[c->size++];
		} else {	/* take over the oldest entry */
			e = c->ring.newer;
			unlink_entry(e);
			p = &c->buckets[bucket_of(c, e->key)];
			while (*p != e)
				p = &(*p)->next;
			*p = e->next;
		}
		e->key = key;
		p = &c->buckets[bucket_of(c, key)];
		e->next = *p;
		*p = e;
	}
	e->value = value;
	link_newest(c, e);
}

int main(void)
{
	struct lru *c = lru_new(3);
	int v = 0;

	assert(c);
	lru_put(c, 1, 10);
	lru_put(c, 2, 20);
	lru_put(c, 3, 30);
	assert(lru_get(c, 1, &v) && v == 10);
	lru_put(c, 4, 40);		/* pushes out 2 */
	assert(!lru_get(c, 2, &v));
	assert(lru_get(c, 3, &v) && v == 30);
	lru_put(c, 1, 11);
	assert(lru_get(c, 1, &v) && v == 11);
	lru_free(c);
	puts("ok");
	return 0;
}
