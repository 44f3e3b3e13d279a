-- A ledger of schema 1, as the last program that knew no other had it.
BEGIN TRANSACTION;
CREATE TABLE counters (
	name TEXT NOT NULL, 
	value BIGINT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "counters" VALUES('tombstones',3);
INSERT INTO "counters" VALUES('requests',4);
INSERT INTO "counters" VALUES('texts',5);
INSERT INTO "counters" VALUES('tokens',600);
INSERT INTO "counters" VALUES('milliseconds',0);
INSERT INTO "counters" VALUES('lookups',0);
INSERT INTO "counters" VALUES('hits',0);
INSERT INTO "counters" VALUES('tokens of 2026-11-23',600);
CREATE TABLE documents (
	document_id TEXT NOT NULL, 
	path BLOB NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	mtime_ns BIGINT NOT NULL, 
	ctime_ns BIGINT NOT NULL, 
	device BIGINT NOT NULL, 
	inode BIGINT NOT NULL, 
	is_regular BOOLEAN NOT NULL, 
	content_hash TEXT NOT NULL, 
	cutting TEXT NOT NULL, 
	chunks INTEGER NOT NULL, 
	tags TEXT NOT NULL, 
	doubtful TEXT NOT NULL, 
	is_unfinished BOOLEAN NOT NULL, 
	problem TEXT, 
	PRIMARY KEY (document_id), 
	UNIQUE (path)
);
INSERT INTO "documents" VALUES('d1',X'6E6F7465732F612E6D64',10,5,6,-9223372036854775807,-1,1,'hash a','c1',2,'{"d1:1":"t1","d1:2":"t2"}','[]',0,NULL);
INSERT INTO "documents" VALUES('d2',X'636166E92E747874',10,5,6,-9223372036854775807,-1,1,'hash b','c1',1,'{"d2:1":"t1"}','["d2:1"]',1,NULL);
INSERT INTO "documents" VALUES('d3',X'E8A3822E62696E',10,5,6,-9223372036854775807,-1,1,'','',0,'{}','[]',0,'{"stage": "decode", "kind": "UndecodableDocument", "reason": "binary", "remedy": "convert it", "attempts": 1, "since_seconds": 1.0, "next_try_seconds": null}');
CREATE TABLE notes (
	name TEXT NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (name)
);
INSERT INTO "notes" VALUES('schema_version','1');
INSERT INTO "notes" VALUES('collection_id','c-1');
INSERT INTO "notes" VALUES('watched_folder','/srv/notes');
INSERT INTO "notes" VALUES('held_deletions','130');
INSERT INTO "notes" VALUES('approved_deletions','130');
CREATE TABLE queue (
	path BLOB NOT NULL, 
	priority INTEGER NOT NULL, 
	enqueued_seconds FLOAT NOT NULL, 
	not_before_seconds FLOAT NOT NULL, 
	attempts INTEGER NOT NULL, 
	problem TEXT, 
	generation BIGINT NOT NULL, 
	is_leased BOOLEAN NOT NULL, 
	PRIMARY KEY (path)
);
INSERT INTO "queue" VALUES(X'6E6F7465732F6E65772E6D64',0,2.0,3.0,0,NULL,0,1);
INSERT INTO "queue" VALUES(X'636166E92E747874',0,2.0,3.0,0,NULL,0,0);
INSERT INTO "queue" VALUES(X'6C617465722E6D64',1,4.0,9.0,0,NULL,0,0);
CREATE INDEX ix_documents_inode ON documents (inode);
CREATE INDEX ix_documents_content_hash ON documents (content_hash);
CREATE INDEX queue_order ON queue (is_leased, priority, enqueued_seconds);
COMMIT;
