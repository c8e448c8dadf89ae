-- A small lending library: tables, sample rows and some useful questions.
-- Written for SQLite; other databases may want small changes.

PRAGMA foreign_keys = ON;

CREATE TABLE author (
    id    INTEGER PRIMARY KEY,
    name  TEXT NOT NULL UNIQUE,
    born  INTEGER CHECK (born BETWEEN -1000 AND 2100)
);

CREATE TABLE book (
    id         INTEGER PRIMARY KEY,
    title      TEXT NOT NULL,
    author_id  INTEGER NOT NULL REFERENCES author (id),
    price      NUMERIC(8, 2) NOT NULL DEFAULT 0 CHECK (price >= 0)
);

CREATE TABLE reader (
    id      INTEGER PRIMARY KEY,
    name    TEXT NOT NULL,
    joined  DATE NOT NULL DEFAULT CURRENT_DATE
);

CREATE TABLE loan (
    book_id    INTEGER NOT NULL REFERENCES book (id),
    reader_id  INTEGER NOT NULL REFERENCES reader (id),
    lent       DATE NOT NULL,
    due        DATE NOT NULL,
    returned   DATE,
    PRIMARY KEY (book_id, lent),
    CHECK (due > lent),
    CHECK (returned IS NULL OR returned >= lent)
);

-- A book can be in only one place at a time.
CREATE UNIQUE INDEX one_open_loan ON loan (book_id) WHERE returned IS NULL;

CREATE VIEW on_the_shelf AS
SELECT b.id, b.title, a.name AS author
  FROM book AS b
  JOIN author AS a ON a.id = b.author_id
 WHERE NOT EXISTS (
           SELECT 1 FROM loan AS l
            WHERE l.book_id = b.id AND l.returned IS NULL
       );

BEGIN;

INSERT INTO author (id, name, born) VALUES
    (1, 'Ines Marlowe', 1952),
    (2, 'Tomas Berg', 1984),
    (3, 'Aiko Hayashi', 1971);

INSERT INTO book (id, title, author_id, price) VALUES
    (1, 'The Salt Road', 1, 12.50),
    (2, 'A Year of Moss', 1, 18.00),
    (3, 'Nine Bridges', 2, 9.95),
    (4, 'Paper Boats', 3, 14.20),
    (5, 'The Baker''s Clock', 3, 11.00);

INSERT INTO reader (id, name, joined) VALUES
    (1, 'Nora', '2019-03-12'),
    (2, 'Samir', '2021-11-02'),
    (3, 'Wanda', '2023-06-30');

INSERT INTO loan (book_id, reader_id, lent, due, returned) VALUES
    (1, 1, '2024-01-08', '2024-02-05', '2024-01-30'),
    (1, 2, '2024-02-10', '2024-03-09', NULL),
    (3, 1, '2024-02-12', '2024-03-11', '2024-03-20'),
    (4, 2, '2024-03-01', '2024-03-29', '2024-03-15'),
    (4, 1, '2024-03-16', '2024-04-13', NULL);

COMMIT;

-- Which books can be borrowed now?
SELECT title, author FROM on_the_shelf ORDER BY title;

-- Who borrows most, and how long do they keep a book on average?
SELECT r.name,
       COUNT(l.book_id) AS loans,
       ROUND(AVG(JULIANDAY(l.returned) - JULIANDAY(l.lent)), 1) AS days_kept
  FROM reader AS r
  LEFT JOIN loan AS l ON l.reader_id = r.id
 GROUP BY r.id
 ORDER BY loans DESC, r.name;

-- Which loans were overdue on the first of April, and what is the fine
-- at ten cents a day?
SELECT r.name, b.title,
       CAST(JULIANDAY('2024-04-01') - JULIANDAY(l.due) AS INTEGER) AS days_late,
       ROUND(0.10 * (JULIANDAY('2024-04-01') - JULIANDAY(l.due)), 2) AS fine
  FROM loan AS l
  JOIN reader AS r ON r.id = l.reader_id
  JOIN book AS b ON b.id = l.book_id
 WHERE l.returned IS NULL AND l.due < '2024-04-01';

-- The dearest book of each author.
SELECT author, title, price
  FROM (SELECT a.name AS author, b.title, b.price,
               RANK() OVER (PARTITION BY a.id ORDER BY b.price DESC) AS place
          FROM author AS a JOIN book AS b ON b.author_id = a.id)
 WHERE place = 1
 ORDER BY price DESC;
